//! The part of pickle's machine that a table of tensors needs.
//!
//! Opcodes as CPython's `pickletools` lists them, protocols 2 to 5. The machine builds tuples, dictionaries and tensors,
//! and calls nothing: the five names that torch uses in a `state_dict` are values of a type of their own, and any other is
//! refused. Everything that a pickle can make grow is bounded: its length by the caller, and with it the stack and the
//! memo; the depth of tuples here. Dictionaries and lists are known by number, so that no cycle is ever followed.

use std::{collections::HashMap, rc::Rc};

use safetensors::Dtype;

/// Tuples nest three deep in what torch writes.
const DEEPEST: usize = 8;

/// A tensor as a pickle describes it: where its numbers lie within a storage, counted in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Bytes of the archive, read as numbers of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// The name of the archive's entry.
    pub(super) key: Rc<str>,
    pub(super) dtype: Dtype,
}

/// What lies on the stack.
#[derive(Debug, Clone)]
enum Value {
    /// None, truth values, fractions, lists and raw bytes: what stands there decides nothing.
    Other,
    Number(i64),
    Text(Rc<str>),
    /// With how deep tuples nest in it.
    Tuple(Rc<[Value]>, usize),
    Name(Name),
    /// By number.
    Dictionary(usize),
    Storage(Storage),
    Tensor(Rc<Tensor>),
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Name {
    fn of(module: &str, name: &str) -> Result<Self, String> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::BOOL),
            _ => {
                return Err(format!(
                    "its pickle names {module}.{name}, and only a plain state_dict of tensors is read, of which nothing \
                     is run; save the model as safetensors"
                ));
            }
        })
    }
}

/// The tensors of a pickled `state_dict` by name.
pub(super) fn tensors(pickle: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let mut machine = Machine { rest: pickle, ..Machine::default() };
    let Value::Dictionary(table) = machine.run()? else {
        return Err("its pickle is no table of tensors; save the model's state_dict".to_owned());
    };
    let entries = machine.dictionaries.swap_remove(table);
    let tensors = entries.into_iter().map(|(key, value)| match (key, value) {
        (Value::Text(name), Value::Tensor(tensor)) => Ok((name.to_string(), (*tensor).clone())),
        (Value::Text(name), _) => {
            Err(format!("its pickle holds {name:?}, which is no tensor; save the model's state_dict alone"))
        }
        _ => Err("its pickle is no table of named tensors; save the model's state_dict".to_owned()),
    });
    tensors.collect()
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    dictionaries: Vec<Vec<(Value, Value)>>,
}

impl Machine<'_> {
    /// Runs to the end and gives what is left on the stack.
    fn run(&mut self) -> Result<Value, String> {
        loop {
            let [opcode] = self.bytes()?;
            match opcode {
                // PROTO, FRAME: the length of either says nothing that is needed.
                0x80 => self.skip(1)?,
                0x95 => self.skip(8)?,
                b'(' => self.marks.push(self.stack.len()),
                b'.' => return self.pop(),
                // NONE, NEWTRUE, NEWFALSE, EMPTY_LIST
                b'N' | 0x88 | 0x89 | b']' => self.stack.push(Value::Other),
                // BINFLOAT
                b'G' => {
                    self.skip(8)?;
                    self.stack.push(Value::Other);
                }
                b'}' => self.new_dictionary(),
                b')' => self.tuple(0)?,
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b't' => {
                    let count = self.since_mark()?;
                    self.tuple(count)?;
                }
                // BININT, BININT1, BININT2, LONG1
                b'J' => {
                    let number = i32::from_le_bytes(self.bytes()?).into();
                    self.stack.push(Value::Number(number));
                }
                b'K' => {
                    let number = u8::from_le_bytes(self.bytes()?).into();
                    self.stack.push(Value::Number(number));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.bytes()?).into();
                    self.stack.push(Value::Number(number));
                }
                0x8a => self.long()?,
                // BINUNICODE, SHORT_BINUNICODE
                b'X' => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    self.text(length as usize)?;
                }
                0x8c => {
                    let [length] = self.bytes()?;
                    self.text(length.into())?;
                }
                // GLOBAL, STACK_GLOBAL
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Name(Name::of(&module, &name)?));
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => {
                        self.stack.push(Value::Name(Name::of(&module, &name)?));
                    }
                    _ => return Err(damaged("a name that is no text")),
                },
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' => {
                    let [at] = self.bytes()?;
                    self.remember(at.into())?;
                }
                b'r' => {
                    let at = u32::from_le_bytes(self.bytes()?);
                    self.remember(at)?;
                }
                0x94 => {
                    let at = u32::try_from(self.memo.len()).map_err(|_| damaged("too much to remember"))?;
                    self.remember(at)?;
                }
                // BINGET, LONG_BINGET
                b'h' => {
                    let [at] = self.bytes()?;
                    self.recall(at.into())?;
                }
                b'j' => {
                    let at = u32::from_le_bytes(self.bytes()?);
                    self.recall(at)?;
                }
                // BINPERSID, REDUCE, BUILD
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                b'b' => self.build()?,
                // SETITEM, SETITEMS
                b's' => self.set_items(2)?,
                b'u' => {
                    let count = self.since_mark()?;
                    self.set_items(count)?;
                }
                // APPEND, APPENDS
                b'a' => self.append(1)?,
                b'e' => {
                    let count = self.since_mark()?;
                    self.append(count)?;
                }
                other => {
                    return Err(format!(
                        "its pickle has the opcode {other:#04x}, which a state_dict doesn't need; save the model as \
                         safetensors"
                    ));
                }
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| damaged("it breaks off"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| damaged("it breaks off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn skip(&mut self, length: usize) -> Result<(), String> {
        self.slice(length).map(|_| ())
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it breaks off"))?;
        let line = String::from_utf8_lossy(self.slice(end)?).into_owned();
        self.skip(1)?;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.slice(length)?).map_err(|_| damaged("a text that isn't UTF-8"))?.into();
        self.stack.push(Value::Text(text));
        Ok(())
    }

    /// A whole number of up to 8 bytes, the lowest first, in two's complement.
    fn long(&mut self) -> Result<(), String> {
        let [length] = self.bytes()?;
        let bytes = self.slice(length.into())?;
        let negative = bytes.last().is_some_and(|last| *last >= 0x80);
        let mut number = [if negative { 0xff } else { 0 }; 8];
        number.get_mut(..bytes.len()).ok_or_else(|| damaged("a number of more than 64 bits"))?.copy_from_slice(bytes);
        self.stack.push(Value::Number(i64::from_le_bytes(number)));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        // What stands below the last mark isn't there for the opcodes above it.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(damaged("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| damaged("an empty stack"))
    }

    /// How many values lie above the last mark, which is taken away.
    fn since_mark(&mut self) -> Result<usize, String> {
        let mark = self.marks.pop().ok_or_else(|| damaged("no mark"))?;
        Ok(self.stack.len() - mark)
    }

    /// The uppermost values, in the order in which they were put there.
    fn take(&mut self, count: usize) -> Result<Vec<Value>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(damaged("an empty stack")),
        }
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let values = self.take(count)?;
        let inner = values.iter().map(|value| match value {
            Value::Tuple(_, depth) => *depth,
            _ => 0,
        });
        let depth = inner.max().unwrap_or(0) + 1;
        if depth > DEEPEST {
            return Err(damaged("tuples within tuples within tuples"));
        }
        self.stack.push(Value::Tuple(values.into(), depth));
        Ok(())
    }

    fn new_dictionary(&mut self) {
        self.dictionaries.push(Vec::new());
        self.stack.push(Value::Dictionary(self.dictionaries.len() - 1));
    }

    fn set_items(&mut self, count: usize) -> Result<(), String> {
        let mut values = self.take(count)?.into_iter();
        let Some(Value::Dictionary(table)) = self.stack.last() else { return Err(damaged("entries of no dictionary")) };
        let entries = self.dictionaries.get_mut(*table).ok_or_else(|| damaged("no such dictionary"))?;
        while let Some(key) = values.next() {
            entries.push((key, values.next().ok_or_else(|| damaged("a key without a value"))?));
        }
        Ok(())
    }

    fn append(&mut self, count: usize) -> Result<(), String> {
        self.take(count)?;
        match self.stack.last() {
            Some(Value::Other) => Ok(()),
            _ => Err(damaged("elements of no list")),
        }
    }

    fn remember(&mut self, at: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or_else(|| damaged("an empty stack"))?.clone();
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), String> {
        self.stack.push(self.memo.get(&at).ok_or_else(|| damaged("a value that it never had"))?.clone());
        Ok(())
    }

    /// `("storage", type, key, device, numbers)`.
    fn storage(&mut self) -> Result<(), String> {
        let Value::Tuple(parts, _) = self.pop()? else { return Err(damaged("a storage that is no tuple")) };
        let [Value::Text(word), Value::Name(Name::Storage(dtype)), Value::Text(key), _, _] = &*parts else {
            return Err(damaged("a storage of another shape"));
        };
        // The key becomes part of an entry's name.
        if &**word != "storage" || !key.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(damaged("a storage of another kind"));
        }
        self.stack.push(Value::Storage(Storage { key: Rc::clone(key), dtype: *dtype }));
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments, _), Value::Name(name)) = (arguments, name) else {
            return Err(damaged("a call of something that is no name"));
        };
        let made = match (name, &*arguments) {
            (Name::OrderedDict, []) => {
                self.new_dictionary();
                return Ok(());
            }
            (
                Name::RebuildTensor,
                [Value::Storage(storage), Value::Number(offset), Value::Tuple(shape, _), Value::Tuple(strides, _), ..],
            ) => {
                let offset = usize::try_from(*offset).map_err(|_| damaged("a tensor before its storage"))?;
                let (shape, strides) = (sizes(shape)?, sizes(strides)?);
                if shape.len() != strides.len() {
                    return Err(damaged("a tensor with more strides than axes, or fewer"));
                }
                Value::Tensor(Rc::new(Tensor { storage: storage.clone(), offset, shape, strides }))
            }
            (Name::RebuildParameter, [Value::Tensor(tensor), ..]) => Value::Tensor(Rc::clone(tensor)),
            _ => return Err(damaged("a call with other arguments than torch's")),
        };
        self.stack.push(made);
        Ok(())
    }

    /// Sets attributes, which only dictionaries have here: the versions of modules, which change no number.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dictionary(_)) => Ok(()),
            _ => Err(damaged("attributes of no dictionary")),
        }
    }
}

fn sizes(values: &[Value]) -> Result<Vec<usize>, String> {
    let sizes = values.iter().map(|value| match value {
        Value::Number(size) => usize::try_from(*size).map_err(|_| damaged("a size below 0")),
        _ => Err(damaged("a size that is no number")),
    });
    sizes.collect()
}

fn damaged(what: &str) -> String {
    format!("its pickle is damaged ({what}); fetch it anew")
}

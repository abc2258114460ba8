//! The filter `tojson` as Transformers has it: Python's `json.dumps`, without the escapes that Jinja adds for HTML.

use std::io::{self, Write};

use minijinja::{
    Error, ErrorKind, Value,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args},
};
use serde::Serialize;
use serde_json::ser::Formatter;

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    type Positions = (Option<Value>, Option<Value>, Option<Value>, Option<Value>, Kwargs);
    let arguments = arguments.into_values();
    let (ensure_ascii, indent, separators, sort_keys, named): Positions = from_args(&arguments)?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "an undefined value is not JSON serializable"));
    }
    let argument = |position: Option<Value>, name: &str| -> Result<Option<Value>, Error> {
        let given: Option<Value> = position.map_or_else(|| named.get(name), |value| Ok(Some(value)))?;
        Ok(given.filter(|value| !value.is_none()))
    };
    let ascii = argument(ensure_ascii, "ensure_ascii")?.is_some_and(|wanted| wanted.is_true());
    let indent = argument(indent, "indent")?.as_ref().map(indentation).transpose()?;
    let separators = argument(separators, "separators")?.as_ref().map(pair).transpose()?;
    let sorted = argument(sort_keys, "sort_keys")?.is_some_and(|wanted| wanted.is_true());
    named.assert_all_used()?;

    let between = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (between.to_owned(), ": ".to_owned()));
    let layout = Python { ascii, indent, item, key, depth: 0, empty: true };
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, layout);
    if sorted {
        let mut tree = serde_json::to_value(value).map_err(failed)?;
        tree.sort_all_objects();
        tree.serialize(&mut serializer).map_err(failed)?;
    } else {
        value.serialize(&mut serializer).map_err(failed)?;
    }
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// A number of spaces, or the text itself.
fn indentation(indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let spaces = i64::try_from(indent.clone())?;
    Ok(" ".repeat(usize::try_from(spaces).unwrap_or(0).min(MOST_SPACES)))
}

/// More are a mistake, and would only take memory.
const MOST_SPACES: usize = 64;

fn pair(separators: &Value) -> Result<(String, String), Error> {
    let refused = || {
        Error::new(ErrorKind::InvalidOperation, "separators are two texts: what stands after an item and after a key")
    };
    if separators.kind() != ValueKind::Seq {
        return Err(refused());
    }
    let texts: Vec<Value> = separators.try_iter()?.collect();
    match texts.as_slice() {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

/// How Python lays JSON out.
struct Python {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    depth: usize,
    /// Whether the list or object that ends now has nothing in it.
    empty: bool,
}

impl Python {
    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !std::mem::take(&mut self.empty) {
            self.line(writer)?;
        }
        writer.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.line(writer)
    }

    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        match &self.indent {
            Some(indent) => write!(writer, "\n{}", indent.repeat(self.depth)),
            None => Ok(()),
        }
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for letter in fragment.chars() {
            if matches!(letter, ' '..='~') {
                write!(writer, "{letter}")?;
            } else {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

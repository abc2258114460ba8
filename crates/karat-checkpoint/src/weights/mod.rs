//! The tensors of a checkpoint: which there are, and their numbers when they are asked for.
//!
//! Only headers are read at first. A tensor's bytes are read once, straight into the memory that a session computes
//! with, so that a model, once ready, depends on no file.

mod files;
mod members;
mod pickle;
mod safetensors;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    slice,
};

use ::safetensors::Dtype;
use half::{bf16, f16};

use self::files::Files;
pub(crate) use self::{
    members::{Changes, LowRank, Member},
    update::Update,
};
use crate::{
    graphs::{Source, Tensor},
    problems::Problems,
};

/// How a file says which tensors it holds; the numbers of all of them lie in it row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A table in JSON.
    Safetensors,
    /// A pickle, as `torch.save` writes it.
    Pickle,
}

impl Format {
    /// Reads what a file says of its tensors.
    fn header(self, file: &Path) -> Result<Vec<(String, Place)>, String> {
        match self {
            Self::Safetensors => safetensors::header(file),
            Self::Pickle => pickle::header(file),
        }
    }
}

/// Where a tensor lies, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: PathBuf,
    dtype: Dtype,
    /// Its shape, as stored.
    pub(crate) shape: Vec<usize>,
    offset: u64,
    length: u64,
}

/// Every tensor of a checkpoint by name.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    places: BTreeMap<String, Place>,
    /// What an adapter changes.
    updates: BTreeMap<String, Update>,
    /// What an adapter brings in the place of the model's own.
    replaced: BTreeSet<String>,
    /// The adapters of an ensemble.
    members: Vec<Member>,
    /// Parts of names by which later programs know the same tensors, each with what it is here.
    later: &'static [(&'static str, &'static str)],
}

impl Weights {
    /// Reads the headers of all weight files of a folder.
    pub(crate) fn read(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let Files { paths, promised } = Files::find(folder, problems)?;
        let mut weights = Self::default();
        for (file, format) in paths {
            weights.add(&file, format, problems);
        }
        let (index, promised) = promised.unwrap_or_default();
        let missing: Vec<&String> = promised.iter().filter(|name| !weights.places.contains_key(*name)).collect();
        if let Some(first) = missing.first() {
            problems.add::<()>(format!(
                "{index} names {} tensors that no file holds, such as {first}; fetch the checkpoint anew",
                missing.len()
            ));
        }
        Some(weights)
    }

    /// Adds the tensors of one file.
    fn add(&mut self, file: &Path, format: Format, problems: &mut Problems) {
        for (name, place) in problems.take(format.header(file)).unwrap_or_default() {
            if let Some(twice) = self.places.insert(name.clone(), place) {
                problems.add::<()>(format!(
                    "{name} is in two files, {} and {}; remove the one that doesn't belong",
                    file_name(&twice.file),
                    file_name(file)
                ));
            }
        }
    }

    /// The tensors of an adapter, which lie in a folder of their own.
    pub(crate) fn beside(folder: &Path, problems: &mut Problems) -> Option<BTreeMap<String, Place>> {
        let Files { paths, .. } = Files::of_adapter(folder, problems)?;
        let mut adapter = Self::default();
        for (file, format) in paths {
            adapter.add(&file, format, problems);
        }
        Some(adapter.places)
    }

    /// Makes the changes of an adapter: tensors take the places of others now, and matrices are added to when they are
    /// read.
    pub(crate) fn merge(&mut self, changes: Changes) {
        self.updates.extend(changes.updates);
        self.replaced.extend(changes.replaced.iter().map(|(name, _)| name.clone()));
        self.places.extend(changes.replaced);
    }

    /// Whether an adapter changes a tensor or brings another in its place.
    pub(crate) fn is_changed(&self, name: &str) -> bool {
        self.is_updated(name) || self.replaced.contains(name)
    }

    /// Whether a tensor is stored in half precision.
    pub(crate) fn is_half(&self, name: &str) -> bool {
        self.places.get(name).is_some_and(|place| place.dtype == Dtype::F16)
    }

    /// Whether an adapter adds to a tensor when it is read.
    pub(crate) fn is_updated(&self, name: &str) -> bool {
        self.updates.contains_key(name)
    }

    /// Every tensor's name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// A tensor's shape.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| place.shape.as_slice())
    }

    /// Takes a prefix off every name that has it, where all but `but` have it.
    pub(crate) fn strip(&mut self, prefix: &str, but: impl Fn(&str) -> bool) {
        if self.names().all(|name| name.starts_with(prefix) || but(name)) {
            let places = std::mem::take(&mut self.places).into_iter();
            self.places = places
                .map(|(name, place)| (name.strip_prefix(prefix).map(str::to_owned).unwrap_or(name), place))
                .collect();
        }
    }

    /// Gives a layer that was saved by itself, as `weight` and `bias`, a name.
    pub(crate) fn name_layer(&mut self, name: &str) {
        for part in ["weight", "bias"] {
            if let Some(place) = self.places.remove(part) {
                self.places.insert(format!("{name}.{part}"), place);
            }
        }
    }

    /// Knows tensors by the names that later programs have for them, too: parts of names, each with what it is here.
    pub(crate) fn know_later_names(&mut self, later: &'static [(&'static str, &'static str)]) {
        self.later = later;
    }

    /// A tensor's name here, by one that may be a later one.
    pub(crate) fn name_here(&self, name: &str) -> String {
        if self.has(name) {
            return name.to_owned();
        }
        self.later.iter().fold(name.to_owned(), |name, (later, here)| name.replace(later, here))
    }

    /// Calls norms what they are called today: the first files of BERT's time have other names for weight and bias.
    pub(crate) fn rename_norms(&mut self) {
        let places = std::mem::take(&mut self.places).into_iter();
        let today = |name: String| match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
            (Some(norm), _) => format!("{norm}LayerNorm.weight"),
            (_, Some(norm)) => format!("{norm}LayerNorm.bias"),
            (None, None) => name,
        };
        self.places = places.map(|(name, place)| (today(name), place)).collect();
    }

    /// Leaves of a model of several kinds of input the part that reads texts, under the names that it has alone.
    pub(crate) fn open_text(&mut self) {
        const OTHERS: &[&str] = &["vision_tower.", "multi_modal_projector."];
        let places = std::mem::take(&mut self.places).into_iter();
        let inner = |name: String| match name.strip_prefix("model.language_model.") {
            Some(own) => format!("model.{own}"),
            None => name.strip_prefix("language_model.").unwrap_or(&name).to_owned(),
        };
        let of_texts = |name: &str| {
            let name = name.strip_prefix("model.").unwrap_or(name);
            !OTHERS.iter().any(|other| name.starts_with(other))
        };
        self.places = places.filter(|(name, _)| of_texts(name)).map(|(name, place)| (inner(name), place)).collect();
    }

    /// Fills `numbers` with those of a tensor from place `start` on, widened to 32 bits without loss; of the given rows
    /// alone where there are some. Each number's own bytes go to `seen`, by way of `bytes`.
    ///
    /// # Errors
    /// When the file can't be read or has changed, the type has no exact 32-bit form, or a number isn't finite.
    pub(crate) fn fill(
        &self,
        name: &str,
        rows: &[Range<usize>],
        start: usize,
        numbers: &mut [f32],
        bytes: &mut Vec<u8>,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        let place = self.places.get(name).ok_or_else(|| format!("the checkpoint has no tensor {name}"))?;
        let mut file = File::open(&place.file).map_err(|error| place.unreadable(name, &error))?;
        let mut filled = 0;
        for range in place.ranges(rows, start..start + numbers.len()) {
            let part = numbers.get_mut(filled..filled + range.len()).unwrap_or_default();
            filled += range.len();
            place.read(name, &mut file, range.start, bytes, part.len())?;
            seen(bytes);
            widen(bytes, place.dtype, part).ok_or_else(|| {
                format!("{name} is of type {:?}; save the checkpoint as F32, F16 or BF16", place.dtype)
            })?;
        }
        if filled != numbers.len() {
            return Err(format!("{name} has fewer numbers than its shape says; the checkpoint is damaged"));
        }
        match numbers.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(format!("{name} holds {} at {}; the checkpoint is damaged", numbers[at], start + at)),
            None => Ok(()),
        }
    }

    /// Changes a tensor's numbers as an adapter says, if one does: those of the given rows, all of them where there are none.
    /// What is read of the adapter goes to `seen`.
    ///
    /// # Errors
    /// When the adapter's file can't be read or has changed, or a number isn't finite.
    pub(crate) fn apply_update(
        &self,
        source: &Source,
        numbers: &mut [f32],
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        let name = &source.tensor;
        let (Some(update), Some(place)) = (self.updates.get(name), self.places.get(name)) else { return Ok(()) };
        let all = place.rows();
        let rows = if source.rows.is_empty() { slice::from_ref(&all) } else { &source.rows };
        update.apply(name, rows, numbers, seen)?;
        match numbers.iter().find(|number| !number.is_finite()) {
            Some(odd) => Err(format!("{name} becomes {odd} with the adapter; the adapter is damaged")),
            None => Ok(()),
        }
    }

    /// All numbers of a small tensor, widened to 32 bits.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<f32>, String> {
        let count = self.shape(name).map_or(0, |shape| shape.iter().product());
        let mut numbers = vec![0.0; count];
        self.fill(name, &[], 0, &mut numbers, &mut Vec::new(), |_| ())?;
        Ok(numbers)
    }

    /// What a weight is beside its bytes: its name and type, its shape, and which rows of it are read.
    pub(crate) fn describe(&self, tensor: &Tensor) -> String {
        let dtype = |source: &Source| self.places.get(&source.tensor).map(|place| place.dtype);
        let dtypes: Vec<_> = tensor.sources.iter().map(dtype).collect();
        format!("{tensor:?} {dtypes:?}\n")
    }

    /// How many numbers a source has.
    pub(crate) fn count(&self, source: &Source) -> usize {
        let Some(place) = self.places.get(&source.tensor) else { return 0 };
        let in_a_row: usize = place.shape.iter().skip(1).product();
        let rows: usize = source.rows.iter().map(Range::len).sum();
        in_a_row * if source.rows.is_empty() { place.rows().len() } else { rows }
    }

    /// The files that the tensors lie in.
    pub(crate) fn files(&self) -> BTreeSet<&Path> {
        self.places.values().map(|place| place.file.as_path()).collect()
    }

    /// The types of the tensors.
    pub(crate) fn types(&self) -> BTreeSet<String> {
        self.places.values().map(|place| format!("{:?}", place.dtype)).collect()
    }
}

impl Place {
    /// All of its rows.
    fn rows(&self) -> Range<usize> {
        0..self.shape.first().copied().unwrap_or(1)
    }

    /// Where the numbers `wanted` of the rows stand among all of the tensor's, piece by piece.
    fn ranges(&self, rows: &[Range<usize>], wanted: Range<usize>) -> Vec<Range<usize>> {
        let all = self.rows();
        let in_a_row: usize = self.shape.iter().skip(1).product();
        let mut before = 0;
        let mut ranges = Vec::new();
        for rows in if rows.is_empty() { slice::from_ref(&all) } else { rows } {
            let count = rows.len() * in_a_row;
            let first = wanted.start.max(before);
            let end = wanted.end.min(before + count);
            if first < end {
                let offset = rows.start * in_a_row;
                ranges.push(offset + first - before..offset + end - before);
            }
            before += count;
        }
        ranges
    }

    /// Reads the bytes of `count` numbers, the first of which stands at `start`.
    fn read(&self, name: &str, file: &mut File, start: usize, bytes: &mut Vec<u8>, count: usize) -> Result<(), String> {
        let size = self.length / self.shape.iter().product::<usize>().max(1) as u64;
        bytes.resize(count * usize::try_from(size).unwrap_or_default(), 0);
        file.seek(SeekFrom::Start(self.offset + start as u64 * size)).and_then(|_| file.read_exact(bytes)).map_err(
            |error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    format!("{name} broke off: {} changed while it was read", self.file.display())
                }
                _ => self.unreadable(name, &error),
            },
        )
    }

    fn unreadable(&self, name: &str, error: &io::Error) -> String {
        format!("{name} can't be read from {}: {error}", self.file.display())
    }
}

/// The 32-bit numbers of some bytes; `None` for a type that has no exact such form.
fn widen(bytes: &[u8], dtype: Dtype, numbers: &mut [f32]) -> Option<()> {
    match dtype {
        Dtype::F32 => each(bytes, numbers, f32::from_le_bytes),
        Dtype::F16 => each(bytes, numbers, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(bytes, numbers, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => return None,
    }
    Some(())
}

fn each<const N: usize>(bytes: &[u8], numbers: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    numbers.iter_mut().zip(bytes.as_chunks().0).for_each(|(into, bytes)| *into = number(*bytes));
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

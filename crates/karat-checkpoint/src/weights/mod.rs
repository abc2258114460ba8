//! The tensors of a checkpoint: which there are, and their numbers when they are asked for.
//!
//! Only headers are read at first. A tensor's bytes are read once, straight into the memory that a session computes
//! with, so that a model, once ready, depends on no file.

mod files;
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
pub(crate) use self::update::Update;
use crate::problems::Problems;

/// How many bytes are read at once.
const PIECE: usize = 1 << 20;

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
#[derive(Debug)]
pub(crate) struct Weights {
    places: BTreeMap<String, Place>,
    /// What an adapter changes.
    updates: BTreeMap<String, Update>,
    /// The files, for the version of what they hold.
    pub(crate) files: Vec<PathBuf>,
}

impl Weights {
    /// Reads the headers of all weight files of a folder.
    pub(crate) fn read(folder: &Path, problems: &mut Problems) -> Option<Self> {
        let Files { paths, promised } = Files::find(folder, problems)?;
        let mut weights = Self { places: BTreeMap::new(), updates: BTreeMap::new(), files: Vec::new() };
        for (file, format) in paths {
            weights.add(file, format, problems);
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
    fn add(&mut self, file: PathBuf, format: Format, problems: &mut Problems) {
        for (name, place) in problems.take(format.header(&file)).unwrap_or_default() {
            if let Some(twice) = self.places.insert(name.clone(), place) {
                problems.add::<()>(format!(
                    "{name} is in two files, {} and {}; remove the one that doesn't belong",
                    file_name(&twice.file),
                    file_name(&file)
                ));
            }
        }
        self.files.push(file);
    }

    /// The tensors of an adapter, which lie in a folder of their own.
    pub(crate) fn beside(&mut self, folder: &Path, problems: &mut Problems) -> Option<BTreeMap<String, Place>> {
        let Files { paths, .. } = Files::of_adapter(folder, problems)?;
        let mut adapter = Self { places: BTreeMap::new(), updates: BTreeMap::new(), files: Vec::new() };
        for (file, format) in paths {
            adapter.add(file, format, problems);
        }
        self.files.append(&mut adapter.files);
        Some(adapter.places)
    }

    /// Puts another tensor in the place of one, or a tensor where there was none.
    pub(crate) fn replace(&mut self, name: String, place: Place) {
        self.places.insert(name, place);
    }

    /// Changes a matrix, whose shape has to be the update's, when it is read.
    pub(crate) fn update(&mut self, name: String, update: Update) {
        self.updates.insert(name, update);
    }

    /// Whether an adapter changes a tensor.
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

    /// A tensor's numbers, widened to 32 bits without loss; of the given rows alone where there are some.
    ///
    /// # Errors
    /// When the file can't be read or has changed, or the type has no exact 32-bit form.
    pub(crate) fn numbers(&self, name: &str, rows: &[Range<usize>]) -> Result<Vec<f32>, String> {
        let place = self.places.get(name).ok_or_else(|| format!("the checkpoint has no tensor {name}"))?;
        let all = 0..place.shape.first().copied().unwrap_or(1);
        let rows = if rows.is_empty() { slice::from_ref(&all) } else { rows };
        let in_a_row: usize = place.shape.iter().skip(1).product();
        let count = rows.iter().map(|rows| rows.len() * in_a_row).sum();
        let mut numbers = Vec::with_capacity(count);
        let mut file = File::open(&place.file).map_err(|error| place.unreadable(name, &error))?;
        for rows in rows {
            place.read_into(name, &mut file, rows.start * in_a_row..rows.end * in_a_row, &mut numbers)?;
        }
        if numbers.len() != count {
            return Err(format!("{name} broke off: {} changed while it was read", place.file.display()));
        }
        if let Some(update) = self.updates.get(name) {
            update.apply(name, rows, &mut numbers)?;
        }
        match numbers.iter().position(|number| !number.is_finite()) {
            Some(at) => Err(format!("{name} holds {} at {at}; the checkpoint is damaged", numbers[at])),
            None => Ok(numbers),
        }
    }

    /// The types of the tensors.
    pub(crate) fn types(&self) -> BTreeSet<String> {
        self.places.values().map(|place| format!("{:?}", place.dtype)).collect()
    }
}

impl Place {
    /// Reads a range of numbers behind those that are there.
    fn read_into(
        &self,
        name: &str,
        file: &mut File,
        range: Range<usize>,
        numbers: &mut Vec<f32>,
    ) -> Result<(), String> {
        let unreadable = |error: io::Error| self.unreadable(name, &error);
        let size = self.length / self.shape.iter().product::<usize>().max(1) as u64;
        file.seek(SeekFrom::Start(self.offset + range.start as u64 * size)).map_err(unreadable)?;
        let mut source = file.take(range.len() as u64 * size);
        // In pieces, so that the bytes never lie beside the numbers as a whole.
        let mut piece = vec![0; PIECE];
        loop {
            let mut filled = 0;
            while filled < piece.len() {
                match source.read(&mut piece[filled..]).map_err(unreadable)? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                return Ok(());
            }
            widen(&piece[..filled], self.dtype, numbers).ok_or_else(|| {
                format!("{name} is of type {:?}; save the checkpoint as F32, F16 or BF16", self.dtype)
            })?;
        }
    }

    fn unreadable(&self, name: &str, error: &io::Error) -> String {
        format!("{name} can't be read from {}: {error}", self.file.display())
    }
}

/// The 32-bit numbers of some bytes; `None` for a type that has no exact such form.
fn widen(bytes: &[u8], dtype: Dtype, numbers: &mut Vec<f32>) -> Option<()> {
    match dtype {
        Dtype::F32 => numbers.extend(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk))),
        Dtype::F16 => numbers.extend(bytes.as_chunks().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32())),
        Dtype::BF16 => numbers.extend(bytes.as_chunks().0.iter().map(|chunk| bf16::from_le_bytes(*chunk).to_f32())),
        _ => return None,
    }
    Some(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

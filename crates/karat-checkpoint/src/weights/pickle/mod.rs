//! Files that `torch.save` writes: a zip archive of a pickle, which says what the tensors are, and of their bytes.
//!
//! A pickle is a program. What it may do here is what a table of tensors needs (`machine.rs`); nothing of it is executed,
//! and whatever else it names is refused by its name.

mod machine;

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::Path,
};

use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use self::machine::{Tensor, tensors};
use super::{Place, file_name};

/// The largest pickle that is read: those of the largest checkpoints are a hundredth of it.
const LONGEST_PICKLE: u64 = 16 << 20;
/// What files of torch before 1.6 begin with.
const OLD_FORMAT: &[u8] = &[0x80, 0x02, 0x8a, 0x0a];
/// What a program for torch's own interpreter has, whose pickle is no table of tensors.
const PROGRAM: &str = "constants.pkl";

/// The tensors of one file, from its pickle.
pub(super) fn header(path: &Path) -> Result<Vec<(String, Place)>, String> {
    let name = file_name(path);
    Archive::open(path).and_then(Archive::places).map_err(|reason| format!("{name}: {reason}"))
}

/// An archive whose entries lie as they are, uncompressed.
struct Archive<'a> {
    path: &'a Path,
    size: u64,
    zip: ZipArchive<BufReader<File>>,
    /// The folder within the archive that holds everything.
    folder: String,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| format!("it can't be opened: {error}"))?;
        let size = file.metadata().map_err(|error| format!("it can't be read: {error}"))?.len();
        let mut start = Vec::new();
        let begins = file.by_ref().take(OLD_FORMAT.len() as u64).read_to_end(&mut start);
        begins.map_err(|error| format!("it can't be read: {error}"))?;
        if start == OLD_FORMAT {
            return Err(
                "it has the format of torch before 1.6; load it with torch.load(…, weights_only=True) and save \
                        it as safetensors"
                    .to_owned(),
            );
        }
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|error| format!("it is damaged, or nothing that torch.save wrote ({error}); fetch it anew"))?;
        let pickle = zip.file_names().flatten().find_map(|name| name.strip_suffix("/data.pkl").map(str::to_owned));
        let folder = pickle.ok_or("it has no data.pkl, so torch.save didn't write it; fetch it anew")?;
        Ok(Self { path, size, zip, folder })
    }

    fn places(mut self) -> Result<Vec<(String, Place)>, String> {
        if self.entry(PROGRAM)?.is_some() {
            return Err(
                "it is a TorchScript program, which is never run; save the model's state_dict instead".to_owned()
            );
        }
        if let Some(order) = self.text("byteorder", 16)?
            && order != b"little"
        {
            return Err("its numbers have the most significant byte first; save it anew as safetensors".to_owned());
        }
        let pickle = self.text("data.pkl", LONGEST_PICKLE)?.ok_or("it has no data.pkl; fetch it anew")?;
        tensors(&pickle)?
            .into_iter()
            .map(|(name, tensor)| self.place(&name, &tensor).map(|place| (name, place)))
            .collect()
    }

    /// Where an entry's bytes lie, if there is one of that name.
    fn entry(&mut self, name: &str) -> Result<Option<(u64, u64)>, String> {
        let name = format!("{}/{name}", self.folder);
        let Some(index) = self.zip.index_for_name(&name) else { return Ok(None) };
        let entry = self.zip.by_index_raw(index).map_err(|error| format!("it is damaged ({name}: {error})"))?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(format!("{name} is compressed, which torch.save never does; fetch it anew"));
        }
        let (start, length) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
        match start.checked_add(length) {
            Some(end) if end <= self.size => Ok(Some((start, length))),
            _ => Err(format!("it is damaged ({name} reaches beyond its end); fetch it anew")),
        }
    }

    /// A whole entry, if there is one of that name.
    fn text(&mut self, name: &str, longest: u64) -> Result<Option<Vec<u8>>, String> {
        let Some((_, length)) = self.entry(name)? else { return Ok(None) };
        if length > longest {
            return Err(format!("its {name} has {length} bytes, and no more than {longest} are read"));
        }
        let entry = self
            .zip
            .by_name(&format!("{}/{name}", self.folder))
            .map_err(|error| format!("it is damaged ({name}: {error})"))?;
        let mut bytes = Vec::new();
        // Reading compares the checksum too.
        entry
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("it is damaged ({name}: {error}); fetch it anew"))?;
        Ok(Some(bytes))
    }

    /// Where a tensor's numbers lie in the file.
    fn place(&mut self, name: &str, tensor: &Tensor) -> Result<Place, String> {
        let Tensor { storage, offset, shape, strides } = tensor;
        if !is_contiguous(shape, strides) {
            return Err(format!(
                "{name} doesn't lie row by row (its strides are {strides:?}); save it anew as safetensors, which \
                 makes it contiguous"
            ));
        }
        let entry = format!("data/{}", storage.key);
        let (start, length) =
            self.entry(&entry)?.ok_or_else(|| format!("it lacks {entry}, which holds {name}; fetch it anew"))?;
        let size = bytes_of(storage.dtype);
        let numbers = shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size as u64));
        let range = numbers.and_then(|numbers| {
            let begin = (*offset as u64).checked_mul(size)?;
            let bytes = numbers.checked_mul(size)?;
            (begin.checked_add(bytes)? <= length).then_some((start + begin, bytes))
        });
        let (offset, length) =
            range.ok_or_else(|| format!("{name} reaches beyond its storage, {entry}; fetch it anew"))?;
        Ok(Place { file: self.path.to_owned(), dtype: storage.dtype, shape: shape.clone(), offset, length })
    }
}

/// Whether numbers lie row by row: an axis of one place may have any stride.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut wanted = 1_usize;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == wanted;
        wanted = wanted.saturating_mul((*size).max(1));
        fits
    })
}

/// How many bytes a number takes.
fn bytes_of(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

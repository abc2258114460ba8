//! The headers of safetensors files.

use std::{fs::File, io::Read as _, path::Path};

use safetensors::tensor::Metadata;

use super::{Place, file_name};

/// The longest header that is read; the format itself allows no more.
const LONGEST_HEADER: u64 = 100_000_000;

/// The tensors of one file, from its header.
pub(super) fn header(file: &Path) -> Result<Vec<(String, Place)>, String> {
    let name = file_name(file);
    let broken = |reason: String| format!("{name} is damaged ({reason}); fetch it anew");
    let mut source = File::open(file).map_err(|error| format!("{name} can't be opened: {error}"))?;
    let size = source.metadata().map_err(|error| format!("{name} can't be read: {error}"))?.len();
    let mut start = [0; 8];
    source.read_exact(&mut start).map_err(|_| broken("it is shorter than its own header".to_owned()))?;
    let length = u64::from_le_bytes(start);
    if length > LONGEST_HEADER || length + 8 > size {
        return Err(broken(format!("its header says that it has {length} bytes")));
    }
    let mut bytes = Vec::new();
    source.take(length).read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    let mut places = Vec::new();
    for (tensor, info) in metadata.tensors() {
        let (begin, end) = info.data_offsets;
        let place = Place {
            file: file.to_owned(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            offset: 8 + length + begin as u64,
            length: (end - begin) as u64,
        };
        if place.offset + place.length > size {
            return Err(broken(format!("{tensor} reaches beyond its end")));
        }
        places.push((tensor, place));
    }
    Ok(places)
}

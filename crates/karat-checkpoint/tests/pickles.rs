//! Weights that `torch.save` wrote: read without running anything of them, and refused where they are more than tensors.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use karat_checkpoint::{Checkpoint, CheckpointError, Origin};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

const SHARD: &str = "pytorch_model-00001-of-00002.bin";
/// What an archive holds: a name and its bytes.
type Entry = (String, Vec<u8>);
/// `collections.OrderedDict()`.
const EMPTY_TABLE: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R";

/// A copy of the recorded checkpoint whose weights are pickles.
fn folder() -> TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints/pickled");
    let folder = TempDir::new().unwrap();
    for file in fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn read(folder: &TempDir) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::read(&Origin::of(folder.path(), &|_, _| Err("it is far away".to_owned()))?)
}

/// The entries of an archive, in order.
fn entries(path: &Path) -> Vec<Entry> {
    let mut archive = ZipArchive::new(File::open(path).unwrap()).unwrap();
    (0..archive.len())
        .map(|index| {
            let mut entry = archive.by_index(index).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

fn write(path: &Path, entries: &[Entry]) {
    let mut archive = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        archive.start_file(name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// The recorded checkpoint with another program in place of a shard's pickle.
fn with_pickle(pickle: &[u8]) -> (TempDir, PathBuf) {
    let folder = folder();
    let shard = folder.path().join(SHARD);
    let mut entries = entries(&shard);
    let place = entries.iter().position(|(name, _)| name.ends_with("/data.pkl")).unwrap();
    entries[place].1 = pickle.to_vec();
    write(&shard, &entries);
    (folder, shard)
}

fn refusal(folder: &TempDir) -> String {
    read(folder).err().unwrap().to_string()
}

/// A text as a pickle writes it.
fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
}

/// `{name: _rebuild_tensor_v2(storage "0" of that type, offset, shape, strides, False, None)}`.
fn tensor(kind: &str, offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let pair = |[first, second]: [u8; 2]| [b'K', first, b'K', second, 0x86];
    let mut pickle = EMPTY_TABLE.to_vec();
    pickle.extend(text("x"));
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle.extend([text("storage"), format!("ctorch\n{kind}\n").into_bytes(), text("0"), text("cpu")].concat());
    pickle.extend(b"K\x04tQK");
    pickle.push(offset);
    pickle.extend([pair(shape), pair(strides)].concat());
    pickle.extend(b"\x89NtRs.");
    pickle
}

#[test]
fn what_a_pickle_would_run_is_refused_by_its_name() {
    let call = |module: &str, name: &str| format!("\x02c{module}\n{name}\n(X\x02\0\0\0lstR.");
    for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "defaultdict")] {
        let (folder, _) = with_pickle(&[b"\x80", call(module, name).as_bytes()].concat());
        let error = refusal(&folder);
        assert!(error.contains(&format!("names {module}.{name}")) && error.contains(SHARD), "{error}");
    }
    // The same by way of the stack, as later protocols write it.
    let named = [b"\x80\x04".as_slice(), &text("posix"), &text("system"), b"\x93)R."].concat();
    let (folder, _) = with_pickle(&named);
    assert!(refusal(&folder).contains("names posix.system"));
    // An instance made by name, which older protocols have an opcode for.
    let (folder, _) = with_pickle(b"(ios\nsystem\n.");
    assert!(refusal(&folder).contains("opcode 0x69"));
}

#[test]
fn a_pickle_that_breaks_off_anywhere_is_refused() {
    let whole =
        entries(&folder().path().join(SHARD)).into_iter().find(|(name, _)| name.ends_with("data.pkl")).unwrap().1;
    for length in (0..whole.len()).step_by(7) {
        let (folder, _) = with_pickle(&whole[..length]);
        let error = refusal(&folder);
        assert!(error.contains("pickle is damaged"), "{length}: {error}");
    }
}

#[test]
fn a_byte_that_was_flipped_in_a_pickle_never_panics() {
    let whole =
        entries(&folder().path().join(SHARD)).into_iter().find(|(name, _)| name.ends_with("data.pkl")).unwrap().1;
    for at in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x15;
        let (folder, _) = with_pickle(&flipped);
        // Some flips change only what nobody reads.
        let _ = read(&folder);
    }
}

#[test]
fn a_small_pickle_can_not_make_something_large_or_deep() {
    // Ten times ten times ten … of the same tuple: nothing is ever expanded, and it is no table in the end.
    let mut laughs = b"\x80\x02)q\0".to_vec();
    for level in 1..8 {
        laughs.push(b'(');
        laughs.extend([b'h', level - 1].repeat(10));
        laughs.extend([b't', b'q', level]);
    }
    laughs.push(b'.');
    let (folder, _) = with_pickle(&laughs);
    assert!(refusal(&folder).contains("no table of tensors"));
    // Tuples within tuples, whose removal would need a stack as deep.
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1 << 20], b".".to_vec()].concat();
    let (folder, _) = with_pickle(&deep);
    assert!(refusal(&folder).contains("tuples within tuples"));
    // A table that holds itself.
    let cyclic = [EMPTY_TABLE, b"q\0", &text("x"), b"h\0s."].concat();
    let (folder, _) = with_pickle(&cyclic);
    assert!(refusal(&folder).contains("\"x\", which is no tensor"));
    let (folder, _) = with_pickle(&vec![b')'; 17 << 20]);
    assert!(refusal(&folder).contains("no more than 16777216 are read"));
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_refused() {
    for (kind, offset, shape, strides, reason) in [
        ("FloatStorage", 0, [200, 200], [200, 1], "reaches beyond its storage"),
        ("HalfStorage", 255, [255, 255], [255, 1], "reaches beyond its storage"),
        ("HalfStorage", 0, [2, 3], [1, 2], "doesn't lie row by row"),
        ("HalfStorage", 0, [2, 2], [0, 1], "doesn't lie row by row"),
        ("UntypedStorage", 0, [1, 1], [1, 1], "names torch.UntypedStorage"),
    ] {
        let (folder, _) = with_pickle(&tensor(kind, offset, shape, strides));
        let error = refusal(&folder);
        assert!(error.contains(reason), "{kind}: {error}");
    }
    // The same builder makes what is read: one row of any stride is a row.
    let (folder, _) = with_pickle(&tensor("HalfStorage", 1, [1, 3], [9, 1]));
    let error = refusal(&folder);
    assert!(error.contains("the checkpoint lacks") && !error.contains("row by row"), "{error}");
}

#[test]
fn archives_that_torch_does_not_write_are_refused() {
    let refused = |change: &dyn Fn(&mut Vec<Entry>), reason: &str| {
        let folder = folder();
        let shard = folder.path().join(SHARD);
        let mut entries = entries(&shard);
        change(&mut entries);
        write(&shard, &entries);
        let error = refusal(&folder);
        assert!(error.contains(reason), "{error}");
    };
    refused(&|entries| entries.retain(|(name, _)| !name.ends_with("data.pkl")), "has no data.pkl");
    refused(&|entries| entries.retain(|(name, _)| !name.ends_with("data/0")), "lacks data/0");
    refused(
        &|entries| {
            let order = entries.iter_mut().find(|(name, _)| name.ends_with("byteorder")).unwrap();
            order.1 = b"big".to_vec();
        },
        "most significant byte first",
    );
    refused(
        &|entries| {
            let folder = entries[0].0.split('/').next().unwrap().to_owned();
            entries.push((format!("{folder}/constants.pkl"), Vec::new()));
        },
        "TorchScript",
    );
    let folder = folder();
    let shard = folder.path().join(SHARD);
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refusal(&folder).contains("it is damaged"));
    fs::write(&shard, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    assert!(refusal(&folder).contains("torch before 1.6"));
}

#[test]
fn safetensors_are_preferred_where_both_are_there() {
    let folder = folder();
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints/grm");
    fs::copy(other.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    fs::remove_file(folder.path().join("value_head.bin")).unwrap();
    fs::write(folder.path().join(SHARD), b"not looked at").unwrap();
    read(&folder).unwrap();
}

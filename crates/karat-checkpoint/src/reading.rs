//! All weights of a graph, read once: what is widened is what is digested.
//!
//! Threads take piece after piece, so that one large tensor keeps none of them waiting, and the bytes of a file never lie
//! beside the numbers as a whole. A file that is rewritten meanwhile gives a mixture, and the digest is that mixture's.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use sha2::{Digest, Sha256};

use crate::{
    graphs::{NumbersMut, Tensor},
    weights::Weights,
};

/// How many numbers are read at once.
const PIECE: usize = 1 << 20;

/// SHA-256 of what a piece was made from.
type PieceDigest = [u8; 32];

/// A part of a tensor, to be read.
struct Piece<'a> {
    tensor: &'a Tensor,
    /// The place of its first number in the tensor.
    start: usize,
    numbers: NumbersMut<'a>,
    digest: &'a mut PieceDigest,
}

/// How reading goes on.
pub(crate) struct Reading<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) threads: NonZeroUsize,
    /// Is told now and then how many numbers are there.
    pub(crate) progress: &'a (dyn Fn(usize) + Sync),
}

impl Reading<'_> {
    /// Reads each tensor into the memory beside it, and gives a digest of all that was read.
    ///
    /// # Errors
    /// What the first piece that failed says.
    pub(crate) fn run(&self, tensors: Vec<(&Tensor, NumbersMut<'_>)>) -> Result<PieceDigest, String> {
        // What an adapter changes is changed as a whole.
        let whole = |tensor: &Tensor| tensor.sources.iter().any(|source| self.weights.is_updated(&source.tensor));
        let size = |tensor: &Tensor, numbers: &NumbersMut<'_>| if whole(tensor) { numbers.len().max(1) } else { PIECE };
        let mut digests: Vec<Vec<PieceDigest>> = tensors
            .iter()
            .map(|(tensor, numbers)| vec![PieceDigest::default(); numbers.len().div_ceil(size(tensor, numbers))])
            .collect();
        let names: Vec<&Tensor> = tensors.iter().map(|(tensor, _)| *tensor).collect();
        let pieces = tensors.into_iter().zip(&mut digests).flat_map(|((tensor, numbers), digests)| {
            let size = size(tensor, &numbers);
            let parts = numbers.pieces(size).into_iter().zip(digests).enumerate();
            parts.map(move |(index, (numbers, digest))| Piece { tensor, start: index * size, numbers, digest })
        });
        let queue = Mutex::new(pieces);
        let (read, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || -> Result<(), String> {
            let (mut bytes, mut widened) = (Vec::new(), Vec::new());
            while !failed.load(Ordering::Relaxed) {
                // Held for as long as it takes to cut off a piece; a thread that panics there ends the whole scope.
                let piece = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(piece) = piece else { break };
                let numbers = piece.numbers.len();
                self.read(piece, &mut bytes, &mut widened).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                (self.progress)(read.fetch_add(numbers, Ordering::Relaxed) + numbers);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads.get()).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |result, thread| {
                // A panic goes on in the thread that waits.
                result.and(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })?;
        drop(queue);
        let mut digest = Sha256::new();
        for (tensor, pieces) in names.into_iter().zip(digests) {
            digest.update(self.weights.describe(tensor));
            pieces.iter().for_each(|piece| digest.update(piece));
        }
        Ok(digest.finalize().into())
    }

    fn read(&self, piece: Piece<'_>, bytes: &mut Vec<u8>, widened: &mut Vec<f32>) -> Result<(), String> {
        let Piece { tensor, start, numbers, digest } = piece;
        let mut hash = Sha256::new();
        match numbers {
            NumbersMut::Float32(numbers) => self.widen(tensor, start, numbers, bytes, &mut hash)?,
            mut numbers => {
                widened.resize(numbers.len(), 0.0);
                self.widen(tensor, start, widened, bytes, &mut hash)?;
                numbers.round(widened).map_err(|odd| {
                    format!("{} holds {odd}, which 16 bits don't: write form = \"rows\" in [graph]", tensor.name)
                })?;
            }
        }
        *digest = hash.finalize().into();
        Ok(())
    }

    /// Reads numbers of a tensor from place `start` on, in 32 bits.
    fn widen(
        &self,
        tensor: &Tensor,
        start: usize,
        numbers: &mut [f32],
        bytes: &mut Vec<u8>,
        hash: &mut Sha256,
    ) -> Result<(), String> {
        let end = start + numbers.len();
        let (mut before, mut filled) = (0, 0);
        for source in &tensor.sources {
            let count = self.weights.count(source);
            let (first, last) = (start.max(before), end.min(before + count));
            if first < last {
                let part = numbers.get_mut(filled..filled + last - first).unwrap_or_default();
                filled += part.len();
                self.weights
                    .fill(&source.tensor, &source.rows, first - before, part, bytes, |bytes| hash.update(bytes))?;
                self.weights.apply_update(source, part, &mut |bytes| hash.update(bytes))?;
            }
            before += count;
        }
        if filled != numbers.len() {
            return Err(format!("{} has fewer numbers than its shape says; the checkpoint is damaged", tensor.name));
        }
        if tensor.plus_one {
            numbers.iter_mut().for_each(|number| *number += 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, path::Path};

    use crate::{Checkpoint, NumbersMut, Origin};

    /// A copy of a recorded checkpoint.
    fn copy(name: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints").join(name);
        for file in fs::read_dir(recorded).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        folder
    }

    /// The numbers and their digest; `progress` runs after each piece.
    fn read(folder: &Path, threads: usize, progress: &(dyn Fn(usize) + Sync)) -> (Vec<Vec<f32>>, [u8; 32]) {
        let checkpoint = Checkpoint::read(&Origin::whole(folder)).unwrap();
        let shapes = checkpoint.graph().tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>());
        let mut numbers: Vec<Vec<f32>> = shapes.map(|count| vec![f32::NAN; count]).collect();
        let memory = numbers.iter_mut().map(|numbers| NumbersMut::Float32(numbers));
        let digest =
            checkpoint.read_weights(checkpoint.graph(), memory, NonZeroUsize::new(threads).unwrap(), progress).unwrap();
        (numbers, digest)
    }

    #[test]
    fn threads_change_neither_numbers_nor_digest() {
        // Rows of fused tensors, and norms that are stored as their distance from 1.
        for name in ["phi3", "internlm2", "gemma"] {
            let folder = copy(name);
            let alone = read(folder.path(), 1, &|_| ());
            assert_eq!(read(folder.path(), 3, &|_| ()), alone, "{name}");
            assert!(alone.0.iter().flatten().all(|number| number.is_finite()), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_rewritten_meanwhile_gives_the_digest_of_what_was_read() {
        let folder = copy("qwen3");
        let weights = folder.path().join("model.safetensors");
        let before = fs::read(&weights).unwrap();
        let mut after = before.clone();
        let (_, changed) = after.split_at_mut(before.len() / 2);
        changed.iter_mut().for_each(|byte| *byte &= 0x3f);
        let old = read(folder.path(), 1, &|_| ());
        let mixed = read(folder.path(), 1, &|read| {
            if read > 5000 {
                fs::write(&weights, &after).unwrap();
            }
        });
        let new = read(folder.path(), 1, &|_| ());
        assert!(mixed.0 != old.0 && mixed.0 != new.0, "it was rewritten in the middle");
        assert!(mixed.1 != old.1 && mixed.1 != new.1 && old.1 != new.1);
    }

    #[test]
    fn the_configuration_is_part_of_the_digest() {
        let folder = copy("qwen3");
        let before = read(folder.path(), 1, &|_| ());
        let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
        fs::write(folder.path().join("config.json"), format!("{config}\n")).unwrap();
        let after = read(folder.path(), 1, &|_| ());
        assert!(before.0 == after.0 && before.1 != after.1);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let folder = copy("qwen3");
        let checkpoint = Checkpoint::read(&Origin::whole(folder.path())).unwrap();
        let weights = folder.path().join("model.safetensors");
        let bytes = fs::read(&weights).unwrap();
        fs::write(&weights, &bytes[..bytes.len() - 2]).unwrap();
        let shapes = checkpoint.graph().tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>());
        let mut numbers: Vec<Vec<f32>> = shapes.map(|count| vec![0.0; count]).collect();
        let memory = numbers.iter_mut().map(|numbers| NumbersMut::Float32(numbers));
        let error =
            checkpoint.read_weights(checkpoint.graph(), memory, NonZeroUsize::MIN, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("changed while it was read"), "{error}");
    }
}

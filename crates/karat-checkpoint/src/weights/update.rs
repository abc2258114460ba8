//! What a low-rank adapter adds to a matrix, computed while the matrix is read (Hu et al. 2021, "LoRA"; Liu et al. 2024,
//! "DoRA").

use std::{fs::File, ops::Range};

use super::{Place, widen};

/// `W + s·B·A`; with magnitudes `m`, each row i of that scaled to the length `mᵢ`.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// `A` `[rank, columns]`; of a table of embeddings `[rank, rows]`.
    pub(crate) down: Place,
    /// `B` `[rows, rank]`; of a table of embeddings `[columns, rank]`.
    pub(crate) up: Place,
    /// `s`.
    pub(crate) scale: f32,
    /// `m` `[rows]`.
    pub(crate) magnitudes: Option<Place>,
    /// Whether the matrix is a table of embeddings, which PEFT trains transposed: `W + s·(B·A)ᵀ`.
    pub(crate) table: bool,
}

impl Update {
    /// The shape of the matrix that it changes; `None` where its parts don't fit each other.
    pub(crate) fn shape(&self) -> Option<[usize; 2]> {
        let (&[rank, across], &[along, inner]) = (self.down.shape.as_slice(), self.up.shape.as_slice()) else {
            return None;
        };
        let shape = if self.table { [across, along] } else { [along, across] };
        let magnitudes = self.magnitudes.as_ref().is_none_or(|magnitudes| magnitudes.shape == shape[..1]);
        (rank == inner && rank > 0 && magnitudes && !(self.table && self.magnitudes.is_some())).then_some(shape)
    }

    /// The rank.
    pub(crate) fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    /// Changes the given rows of the matrix of that name, which lie one behind the other in `numbers`. What is read for that
    /// goes to `seen`.
    pub(super) fn apply(
        &self,
        name: &str,
        rows: &[Range<usize>],
        numbers: &mut [f32],
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<(), String> {
        let rank = self.rank();
        let (mut down, mut up) = (self.down.all(name, seen)?, self.up.all(name, seen)?);
        if self.table {
            (down, up) = (transposed(&up, rank), transposed(&down, self.down.shape[1]));
        }
        let magnitudes = self.magnitudes.as_ref().map(|magnitudes| magnitudes.all(name, seen)).transpose()?;
        let columns = down.len() / rank.max(1);
        let mut sum = vec![0.0; columns];
        let places = rows.iter().cloned().flatten();
        for (row, weights) in places.zip(numbers.chunks_exact_mut(columns.max(1))) {
            sum.fill(0.0);
            for (factor, direction) in up[row * rank..].iter().zip(down.chunks_exact(columns.max(1))) {
                sum.iter_mut().zip(direction).for_each(|(sum, part)| *sum += factor * part);
            }
            weights.iter_mut().zip(&sum).for_each(|(weight, sum)| *weight += self.scale * sum);
            if let Some(magnitudes) = &magnitudes {
                let length = weights.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>().sqrt();
                #[expect(clippy::cast_possible_truncation, reason = "weights have 32 bits")]
                let factor = (f64::from(magnitudes[row]) / length) as f32;
                weights.iter_mut().for_each(|weight| *weight *= factor);
            }
        }
        Ok(())
    }
}

impl Place {
    /// All numbers of a part.
    fn all(&self, name: &str, seen: &mut dyn FnMut(&[u8])) -> Result<Vec<f32>, String> {
        let mut file = File::open(&self.file).map_err(|error| self.unreadable(name, &error))?;
        let (mut bytes, mut numbers) = (Vec::new(), vec![0.0; self.shape.iter().product()]);
        self.read(name, &mut file, 0, &mut bytes, numbers.len())?;
        seen(&bytes);
        widen(&bytes, self.dtype, &mut numbers)
            .ok_or_else(|| format!("the adapter of {name} is of type {:?}; save it as F32, F16 or BF16", self.dtype))?;
        Ok(numbers)
    }
}

/// A matrix of rows of `columns` numbers, column by column.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

//! Weights that the sessions of several graphs share, where the graphs lie in the same file.
//!
//! Of what is packed for kernels ONNX Runtime finds out itself whether it is the same, by its numbers. What sessions read
//! as it is, such as embeddings, is compared number for number. So a wrong guess at which graphs belong together costs
//! memory at most.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::ort::{
    session::builder::PrepackedWeights,
    value::{DynValue, PrimitiveTensorElementType, TensorElementType},
};
use half::{bf16, f16};

use crate::FileIdentity;

/// What the sessions of some graphs share.
pub(super) struct Pool {
    packed: PrepackedWeights,
    kept: Mutex<Vec<Weak<DynValue>>>,
    graphs: AtomicUsize,
}

impl Pool {
    fn new() -> Self {
        Self { packed: PrepackedWeights::new(), kept: Mutex::default(), graphs: AtomicUsize::new(0) }
    }

    /// What was packed.
    pub(super) fn packed(&self) -> &PrepackedWeights {
        &self.packed
    }

    /// A weight that sessions read as it is, or the one with the same numbers that is there already.
    pub(super) fn keep(&self, value: DynValue) -> Arc<DynValue> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.strong_count() > 0);
        if let Some(known) = kept.iter().filter_map(Weak::upgrade).find(|known| is_same(known, &value)) {
            return known;
        }
        let value = Arc::new(value);
        kept.push(Arc::downgrade(&value));
        value
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("graphs", &self.graphs).finish_non_exhaustive()
    }
}

/// The pools of a process, as long as a graph uses them. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pools {
    by_file: Arc<Mutex<HashMap<FileIdentity, Weak<Pool>>>>,
}

impl Pools {
    /// The pool of the graphs whose weights lie in a file; one of its own where they lie in none.
    pub(super) fn of(&self, file: Option<FileIdentity>) -> Arc<Pool> {
        let Some(file) = file else { return Arc::new(Pool::new()) };
        let mut by_file = self.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        by_file.retain(|_, pool| pool.strong_count() > 0);
        if let Some(pool) = by_file.get(&file).and_then(Weak::upgrade) {
            return pool;
        }
        let pool = Arc::new(Pool::new());
        by_file.insert(file, Arc::downgrade(&pool));
        pool
    }
}

/// The weights of a graph that is served, some of which others may use as well.
#[derive(Debug, Default)]
pub struct WeightShare {
    bytes: u64,
    pool: Option<Arc<Pool>>,
}

impl WeightShare {
    /// Weights of so many bytes, shared with those of the pool's other graphs.
    pub(super) fn new(bytes: u64, pool: Option<Arc<Pool>>) -> Self {
        if let Some(pool) = &pool {
            pool.graphs.fetch_add(1, Ordering::Relaxed);
        }
        Self { bytes, pool }
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many graphs share them now, this one included.
    #[must_use]
    pub fn graphs(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.graphs.load(Ordering::Relaxed).max(1))
    }

    /// This graph's share of the bytes.
    #[must_use]
    pub fn share(&self) -> u64 {
        self.bytes / self.graphs() as u64
    }
}

impl Drop for WeightShare {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.graphs.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether two tensors have one shape, one format and the same numbers, bit for bit.
fn is_same(one: &DynValue, other: &DynValue) -> bool {
    match one.data_type() {
        _ if one.data_type() != other.data_type() => false,
        TensorElementType::Float32 => have_same(one, other, |number: f32| number.to_bits()),
        TensorElementType::Float16 => have_same(one, other, f16::to_bits),
        TensorElementType::Bfloat16 => have_same(one, other, bf16::to_bits),
        TensorElementType::Int8 => have_same(one, other, |number: i8| number),
        TensorElementType::Uint8 => have_same(one, other, |number: u8| number),
        _ => false,
    }
}

fn have_same<T, B>(one: &DynValue, other: &DynValue, bits: impl Fn(T) -> B) -> bool
where
    T: PrimitiveTensorElementType + Copy,
    B: PartialEq,
{
    let (Ok((shape, one)), Ok((other_shape, other))) = (one.try_extract_tensor::<T>(), other.try_extract_tensor::<T>())
    else {
        return false;
    };
    shape == other_shape && one.iter().zip(other).all(|(one, other)| bits(*one) == bits(*other))
}

#[cfg(test)]
mod tests {
    use ::ort::value::Tensor;

    use super::{super::testing::library, *};

    fn tensor(shape: [i64; 2], numbers: &[f32]) -> DynValue {
        Tensor::from_array((shape.to_vec(), numbers.to_vec())).unwrap().into_dyn()
    }

    #[test]
    fn what_has_the_same_numbers_is_kept_once_while_somebody_uses_it() {
        let _library = library();
        let pool = Pool::new();
        let first = pool.keep(tensor([1, 2], &[1.0, 2.0]));
        assert!(Arc::ptr_eq(&first, &pool.keep(tensor([1, 2], &[1.0, 2.0]))));
        for other in [tensor([2, 1], &[1.0, 2.0]), tensor([1, 2], &[1.0, 3.0]), tensor([1, 2], &[1.0, -2.0])] {
            assert!(!Arc::ptr_eq(&first, &pool.keep(other)));
        }
        drop(first);
        pool.keep(tensor([1, 2], &[0.0, 0.0]));
        assert_eq!(pool.kept.lock().unwrap().iter().filter(|kept| kept.strong_count() > 0).count(), 0);
    }

    #[test]
    fn graphs_of_one_file_share_a_pool_and_its_bytes() {
        let _library = library();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            FileIdentity::of(&path)
        };
        let (pools, one, other) = (Pools::default(), file("one"), file("other"));
        let first = WeightShare::new(100, Some(pools.of(one.clone())));
        assert_eq!((first.graphs(), first.share()), (1, 100));
        let second = WeightShare::new(100, Some(pools.of(one.clone())));
        let third = WeightShare::new(60, Some(pools.of(other)));
        assert_eq!((first.share(), second.share(), third.share()), (50, 50, 60));
        drop(second);
        assert_eq!(first.share(), 100);
        drop(first);
        assert_eq!(WeightShare::new(100, Some(pools.of(one))).graphs(), 1);
        assert_eq!(WeightShare::new(100, None).share(), 100);
    }
}

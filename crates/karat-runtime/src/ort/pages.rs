//! The memory of a tensor, page by page.

use ::ort::{
    AsPointer,
    value::{DynValue, TensorElementType},
};

/// A tensor's numbers as bytes. Whoever has it must know that nobody reads or writes them meanwhile but itself and what it
/// runs.
pub(super) struct Pages {
    start: *mut u8,
    bytes: usize,
}

impl Pages {
    /// Those of a tensor whose numbers lie in memory of this process; `None` of others.
    pub(super) fn of(value: &DynValue) -> Option<Self> {
        let number = match value.data_type() {
            TensorElementType::Float32 => 4,
            TensorElementType::Float16 | TensorElementType::Bfloat16 => 2,
            TensorElementType::Int8 | TensorElementType::Uint8 => 1,
            _ => return None,
        };
        let count: usize = value.shape().iter().map(|size| usize::try_from(*size).unwrap_or(0)).product();
        let start = Self::start(value)?;
        (!start.is_null()).then_some(Self { start, bytes: count * number })
    }

    #[expect(unsafe_code, reason = "ort gives references alone, through which nothing may be written")]
    fn start(value: &DynValue) -> Option<*mut u8> {
        let mut start = std::ptr::null_mut();
        // SAFETY: the value lives, and is a tensor: its numbers have a format that only tensors have here.
        let told = unsafe { (::ort::api().GetTensorMutableData)(value.ptr().cast_mut(), &raw mut start) };
        // SAFETY: it is what a call has returned.
        unsafe { ::ort::Error::result_from_status(told) }.ok()?;
        Some(start.cast())
    }

    /// How many bytes they are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Overwrites every byte, and gives what stood there.
    #[expect(unsafe_code, reason = "the tensor is shared with sessions, which ort knows no way to write through")]
    pub(super) fn overwrite(&mut self, byte: u8) -> Vec<u8> {
        // SAFETY: so many bytes are the tensor's own, and no reference to them lives while a `Pages` is used.
        let numbers = unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) };
        let before = numbers.to_vec();
        numbers.fill(byte);
        before
    }

    /// Writes back what stood there.
    #[expect(unsafe_code, reason = "as above")]
    pub(super) fn restore(&mut self, before: &[u8]) {
        // SAFETY: as in `overwrite`.
        let numbers = unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) };
        let length = before.len().min(numbers.len());
        numbers[..length].copy_from_slice(&before[..length]);
    }

    /// Gives the memory back to the system, as far as it is whole pages. What stands there is lost; that it may be read
    /// remains, until the tensor is dropped.
    pub(super) fn give_back(self) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        self.drop_pages();
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the system's own call")]
    fn drop_pages(&self) {
        // SAFETY: it only reads a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        if !page.is_power_of_two() {
            return;
        }
        let skipped = self.start.align_offset(page);
        let whole = self.bytes.saturating_sub(skipped) / page * page;
        if whole == 0 {
            return;
        }
        // SAFETY: whole pages within the tensor's own memory, which is the allocator's and so anonymous: they become
        // zeros, which is as good as any numbers to those who read none.
        let failed = unsafe { libc::madvise(self.start.add(skipped).cast(), whole, libc::MADV_DONTNEED) } != 0;
        if failed {
            tracing::debug!(bytes = whole, "memory of weights can't be given back");
        }
    }
}

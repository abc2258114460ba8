//! Gives memory that was freed back to the system.

// Linked for its symbols: there are no bindings for what is needed of it.
use libmimalloc_sys as _;

/// Has the allocators return what they keep for later. Each session packs matrices for its kernels, and frees what another
/// has packed already: as much as the weights take, in pieces that glibc would keep for as long as the process runs. Files
/// that were read and numbers that were kept aside are as large, and mimalloc's, the program's own allocator.
pub fn give_back_memory() {
    collect();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    trim();
}

#[expect(unsafe_code, reason = "mimalloc's own function")]
fn collect() {
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: it touches nothing but free memory. Where the program allocates elsewhere there is none.
    unsafe { mi_collect(true) };
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc's own function")]
fn trim() {
    // SAFETY: it touches nothing but free memory, and takes the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

//! Gives memory that was freed back to the system.

/// Has the allocator return what it keeps for later. Each session packs matrices for its kernels, and frees what another
/// has packed already: as much as the weights take, in pieces that glibc would keep for as long as the process runs.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc's own function")]
fn trim() {
    // SAFETY: it touches nothing but free memory, and takes the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

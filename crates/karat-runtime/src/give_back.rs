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

/// Has glibc go on giving back what was freed at the end of a heap. By itself it stops: when a large piece is freed, such as a
/// file that was read, it takes pieces of that size for usual and keeps twice as much at the end of each thread's heap,
/// where [`give_back_memory`] doesn't reach it (`malloc_trim` looks at the end of the first heap alone).
pub(crate) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    bound_heaps();
}

/// As many bytes may be free at the end of a heap: what a pass takes beside its arena and frees again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE_AT_END: libc::c_int = 1 << 20;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc's own function")]
fn bound_heaps() {
    // SAFETY: it sets a number, under the allocator's lock. Setting it ends that glibc changes it by itself, and with it the
    // size from which pieces are mapped one by one.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_AT_END) };
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

#[cfg(test)]
mod tests {
    use std::{env, hint::black_box, thread};

    use super::*;
    use crate::testing::{resident, run_alone};

    /// Set for the process that [`child`] runs in.
    const CHILD: &str = "KARAT_TEST_GIVE_BACK";
    const MIB: usize = 1 << 20;

    /// Runs alone in a process of its own, whose memory nobody else changes.
    #[test]
    #[ignore = "only meant to be run by the test below"]
    fn child() {
        if env::var_os(CHILD).is_none() {
            return;
        }
        keep_little();
        // As large as a file of weights: pieces of this size would be usual from now on.
        drop(black_box(vec![1_u8; 30 * MIB]));
        // Another thread than the first has a heap of its own.
        let kept = thread::spawn(|| {
            let before = resident();
            // Nothing is allocated behind it, so that it lies at the end.
            drop(black_box(vec![1_u8; 16 * MIB]));
            give_back_memory();
            resident().saturating_sub(before)
        });
        let kept = kept.join().unwrap();
        assert!(kept < 4 * MIB, "{kept} bytes are kept of 16 MiB that were freed");
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn what_a_thread_freed_at_the_end_of_its_heap_is_given_back_after_large_pieces_too() {
        run_alone("give_back::tests::child", CHILD, "1", &[]);
    }
}

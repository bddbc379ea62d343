//! Keeps the process as small as what it uses, whatever came and went.
//!
//! The C library has an arena for each thread that ever allocated, takes large buffers from them too once some were freed, and
//! keeps what was freed between what still lives: measured, 20 MiB held after a thousand small dumps of which 0.6 MiB lived,
//! and a little more with each hundred. Nothing here does anything with another C library.

/// Large buffers come from the system and go back to it when they are freed: no hole is left where they were. To be called
/// before there is a second thread.
pub fn bound() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets numbers that the allocator reads, and no other thread is there to read them meanwhile.
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, MOST_ARENAS);
    }
}

/// The library's own first value, which it would otherwise raise to that of the largest buffer ever freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 << 10;
/// Otherwise eight for each core. Measured on a dump: one costs no CPU, since each thread keeps its own small pieces at hand.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MOST_ARENAS: libc::c_int = 1;

/// Gives back whole pages that nobody uses, of every arena. Takes milliseconds.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the arenas' own locks, moves nothing, and touches only what was freed.
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    unsafe {
        libc::malloc_trim(0);
    }
}

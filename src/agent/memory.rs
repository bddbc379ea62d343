//! Gives memory that a run no longer uses back to the system, so that an agent stays as small as it began.
//!
//! The C library keeps what was freed, in an arena for each thread that ever allocated, and a dump's buffers leave holes
//! in each: measured, 20 MiB held after a thousand small dumps of which 1.5 MiB were in use.

/// Of every arena, whole pages that nobody uses. Takes milliseconds; nothing happens with another C library.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes the arenas' own locks, moves nothing, and touches only what was freed.
    #[expect(unsafe_code, reason = "no safe wrapper exists")]
    unsafe {
        libc::malloc_trim(0);
    }
}

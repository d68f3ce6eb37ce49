//! Memory that is asked for before it is needed.

/// Asks for the cache line that `address` lies in, and returns at once. Any address will do: it
/// is a hint, and nothing but time comes of it.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction neither reads nor writes for the program, and faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

//! Verifies a release from its anchor on, without the standard library; exits with 0 if it is
//! authentic.
//!
//! If anything below `tidings-protocol` used `std`, there would be two panic handlers and this
//! would not link.
#![no_std]
#![no_main]

extern crate alloc;

use core::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicUsize, Ordering},
};

use tidings_protocol::{Anchor, Statement, trust::Trust};

const TRUST: &[u8] = include_bytes!("../../../spec/vectors/good/trust-1");
const RELEASE: &[u8] = include_bytes!("../../../spec/vectors/good/release-2-full");

#[link(name = "c")]
unsafe extern "C" {}

/// Hands out memory once and takes none back: the program is short.
struct Bump;

const HEAP: usize = 1 << 20;
#[repr(align(16))]
struct Memory(core::cell::UnsafeCell<[u8; HEAP]>);
// SAFETY: `NEXT` gives every octet to one caller only.
unsafe impl Sync for Memory {}
static MEMORY: Memory = Memory(core::cell::UnsafeCell::new([0; HEAP]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the regions handed out are aligned, within `MEMORY`, and do not overlap.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() + layout.align();
        let start = NEXT.fetch_add(size, Ordering::Relaxed);
        if start + size > HEAP {
            return core::ptr::null_mut();
        }
        let base = MEMORY.0.get().cast::<u8>();
        let aligned = (base as usize + start).next_multiple_of(layout.align());
        // SAFETY: `aligned` lies within the `size` octets that were reserved.
        unsafe { base.add(aligned - base as usize) }
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// What follows the head of a vector's file.
fn body(vector: &[u8]) -> &[u8] {
    let end = vector.windows(2).position(|w| w == b"\n\n").unwrap_or(0);
    vector.get(end + 2..).unwrap_or_default()
}

fn authentic() -> Option<()> {
    let first = Statement::parse(body(TRUST)).ok()?;
    let anchor = Anchor { namespace: "vectors".parse().ok()?, head: first.head() };
    let trust = Trust::first(&anchor, first).ok()?;
    let release = trust.verify(Statement::parse(body(RELEASE)).ok()?).ok()?;
    (release.serial().number() == 2).then_some(())
}

/// The entry point of the C runtime.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    i32::from(authentic().is_none())
}

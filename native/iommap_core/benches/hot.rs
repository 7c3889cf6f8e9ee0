//! Times hot calls of the core, outside of a VM: one line `NANOSECONDS WORKLOAD` for each workload.
//!
//! `bench/mechanisms` builds this with and without each mechanism for speed, and compares.

use iommap_core::{Access, Buffer, Data, Handle, Options, Wait};
use std::ffi::CString;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const SIZE: usize = 64 << 20;
const CALLS: u32 = 1_000_000;
const SAMPLES: usize = 7;

/// Memory on the stack of the caller, so that nothing but the core is timed.
struct Bytes<const N: usize>([u8; N], usize);

// SAFETY: the array is its own, and the length at most its.
unsafe impl<const N: usize> Buffer for Bytes<N> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.1
    }
}

impl<const N: usize> Bytes<N> {
    fn of(length: usize) -> Option<Self> {
        (length <= N).then_some(Bytes([0; N], length))
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = open(&directory.path().join("data"), 1);
    let zeros = open(&directory.path().join("zeros"), 0);

    time("read 8 B, random", |random| read::<8>(&data, random));
    time("read 64 B, random", |random| read::<64>(&data, random));
    time("read 4 KB, random", |random| read::<4096>(&data, random));
    time("read 8 B, same page", |random| {
        read::<8>(&data, random % 4096)
    });
    time("read 8 B of zeros, random", |random| {
        read::<8>(&zeros, random)
    });
    time("write 64 B, random", |random| write(&data, random));
    std::thread::scope(|scope| {
        let reader = || {
            time("read 64 B, random, two threads", |random| {
                read::<64>(&data, random)
            })
        };
        let other = scope.spawn(|| samples(&mut |random| read::<64>(&data, random)));
        reader();
        other.join().expect("a reader");
    });
}

fn open(path: &Path, byte: u8) -> Handle<()> {
    std::fs::write(path, vec![byte; SIZE]).expect("a file");
    let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    Handle::open(&path, Options::new(Access::ReadWrite)).expect("a handle")
}

fn read<const N: usize>(handle: &Handle<()>, random: usize) {
    let offset = (random & (SIZE - 1) & !(N - 1)) as u64;
    let read = handle.pread(Wait::NonBlocking, offset, N as u64, Bytes::<N>::of);
    if read.is_err() {
        // What was read long ago is asked about anew.
        let _ = handle.pread(Wait::Blocking, offset, N as u64, Bytes::<N>::of);
    }
    let _ = black_box(read);
}

fn write(handle: &Handle<()>, random: usize) {
    static DATA: [u8; 64] = [1; 64];
    let offset = (random & (SIZE - 1) & !63) as u64;
    let segments = [DATA.as_slice().into()];
    let data = Data::new(&segments).expect("it is short");
    handle.prefetch(offset, 1);
    if handle.pwrite(Wait::NonBlocking, offset, data).is_err() {
        let _ = handle.pwrite(Wait::Blocking, offset, data);
    }
}

fn time(workload: &str, mut call: impl FnMut(usize)) {
    println!("{:8.2} {workload}", samples(&mut call));
}

/// The median of several samples, after one that warms up.
fn samples(call: &mut impl FnMut(usize)) -> f64 {
    let mut samples: Vec<f64> = (0..=SAMPLES).map(|_| sample(call)).collect();
    samples.remove(0);
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

fn sample(call: &mut impl FnMut(usize)) -> f64 {
    let mut seed: usize = 1;
    let start = Instant::now();
    for _ in 0..CALLS {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        call(seed >> 30);
    }
    start.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

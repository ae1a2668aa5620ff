//! Products read nothing behind their operands: what follows are pages that nobody can touch.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs)]

mod common;

use std::ffi::c_void;
use std::slice::from_raw_parts;

use common::data::{Distribution, Rng};
use halfstep::gemm::{Gemm, Layout, Matrix, Operands};
use halfstep::{Device, Storage, bf16, f16};

unsafe extern "C" {
    fn mmap(at: *mut c_void, len: usize, may: i32, how: i32, file: i32, from: i64) -> *mut c_void;
    fn mprotect(at: *mut c_void, len: usize, may: i32) -> i32;
    fn munmap(at: *mut c_void, len: usize) -> i32;
}

const PAGE: usize = 4096;

/// Values up to the end of a page, before one that cannot be touched.
struct Last<T> {
    map: *mut c_void,
    bytes: usize,
    values: *const T,
    len: usize,
}

impl<T: Storage> Last<T> {
    fn new(values: &[T]) -> Self {
        let whole = size_of_val(values).next_multiple_of(PAGE);
        let bytes = whole + PAGE;
        // SAFETY: pages of this test's own, zeros (private, anonymous; to be read and written), the last of which loses its
        // rights; as many values are written before it.
        unsafe {
            let map = mmap(std::ptr::null_mut(), bytes, 3, 0x22, -1, 0);
            assert!(map.addr() != usize::MAX);
            assert_eq!(mprotect(map.byte_add(whole), PAGE, 0), 0);
            let start = map.byte_add(whole - size_of_val(values)).cast::<T>();
            start.copy_from_nonoverlapping(values.as_ptr(), values.len());
            Self { map, bytes, values: start, len: values.len() }
        }
    }

    fn get(&self) -> &[T] {
        // SAFETY: written where this was made.
        unsafe { from_raw_parts(self.values, self.len) }
    }
}

impl<T> Drop for Last<T> {
    fn drop(&mut self) {
        // SAFETY: mapped where this was made, and not used any more.
        assert_eq!(unsafe { munmap(self.map, self.bytes) }, 0);
    }
}

/// Runs a product of operands that end where a page does, rows of A and B `gap` further apart than they are long.
fn product<T: Storage>(
    device: &Device,
    (m, n, k): (usize, usize, usize),
    layout: Layout,
    gap: usize,
) {
    let stream = device.stream().unwrap();
    let mut rng = Rng((m * n * k) as u64);
    let mut of = |transposed: bool, (rows, columns): (usize, usize)| {
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        let len = (rows - 1) * (columns + gap) + columns;
        (Last::<T>::new(&Distribution::Normal.fill(&mut rng, len)), columns + gap)
    };
    let ((a, lda), (b, ldb)) =
        (of(layout.a_transposed(), (m, k)), of(layout.b_transposed(), (k, n)));
    let gemm = Gemm::new(m, n, k).layout(layout);
    let gemm = gemm.leading(Matrix::A, lda).leading(Matrix::B, ldb);
    let mut d = vec![T::zeroed(); m * n];
    let (a, b) = (a.get(), b.get());
    let operands = Operands::new(&a, &b, &mut d);
    gemm.plan::<T, T>(device).unwrap().run(&stream, operands).unwrap();
    stream.sync().unwrap();
}

fn every_shape<T: Storage>() {
    for device in ["avx512f", "avx2+fma", "portable"]
        .into_iter()
        .filter_map(|form| Device::cpu_with_arch(1.try_into().ok()?, form).ok())
    {
        for m in [1, 2, 3, 8, 9, 40] {
            for (n, k) in [(1, 1), (1, 40), (2, 33), (15, 3), (17, 8), (33, 31), (63, 70), (300, 9)]
            {
                for layout in Layout::ALL {
                    for gap in [0, 1, 40] {
                        product::<T>(&device, (m, n, k), layout, gap);
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_is_read_behind_operands() {
    every_shape::<bf16>();
    every_shape::<f16>();
    every_shape::<f32>();
}

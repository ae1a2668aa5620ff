//! Index arithmetic beyond 2³¹ elements, on memory of which only the ends exist: the virtual GPU's
//! allocations cost what is touched, and are not filled here.

use super::super::{Address, Backend, StreamId};
use super::Gpu;
use super::image::{Kernels, Unloadable};
use crate::bf16;
use crate::kernel::Launch;
use crate::kernel::image::{ABI, Image, checksum, images};
use crate::kernel::params::optim::{
    Block, Chunk, MASTER_NEAREST, Scalars, Stats, Status, Step, Tensor,
};
use crate::kernel::params::{Partial, reduce};
use crate::kernel::table::optim::Row;

/// Elements; the last chunk lies across 2³¹ and ends at an odd place.
const LEN: u64 = (1 << 31) + 9;
const START: u64 = (1 << 31) - 16_384 + 16;

fn gpus() -> Vec<Gpu> {
    let found = [
        #[cfg(feature = "cuda")]
        super::super::cuda::open(0),
        #[cfg(feature = "hip")]
        super::super::hip::open(0),
    ];
    let here = found
        .into_iter()
        .filter_map(|gpu| gpu.inspect_err(|error| println!("skipped: {error}")).ok());
    here.filter(|gpu| {
        // Real memory would be taken whole.
        let virtual_ = gpu.info().name.contains("virtual");
        if !virtual_ {
            println!(
                "skipped: {} is not virtual; tests/optim.rs has the same with 9 GB",
                gpu.info()
            );
        }
        virtual_
    })
    .collect()
}

/// Memory that is not filled.
fn sparse(gpu: &Gpu, bytes: u64) -> Address {
    let taken = gpu.with(|state| state.pool.take(bytes as usize, &mut state.order));
    Address(taken.unwrap().expect("it fits the device"))
}

fn put<T: bytemuck::Pod>(gpu: &Gpu, stream: StreamId, to: Address, values: &[T]) {
    // SAFETY: inside an allocation of the test's.
    unsafe { gpu.upload(stream, to, bytemuck::cast_slice(values)) }.unwrap();
}

fn get<T: bytemuck::Pod>(gpu: &Gpu, stream: StreamId, from: Address, len: usize) -> Vec<T> {
    let mut values = vec![T::zeroed(); len];
    // SAFETY: inside an allocation of the test's, written before.
    unsafe { gpu.download(stream, from, bytemuck::cast_slice_mut(&mut values)) }.unwrap();
    values
}

fn table<T: bytemuck::Pod>(gpu: &Gpu, stream: StreamId, values: &[T]) -> u64 {
    let to = gpu.alloc(size_of_val(values)).unwrap();
    put(gpu, stream, to, values);
    to.0
}

/// Stats and a step of bf16 parameters with f32 moments, over the last chunk of a tensor of 2³¹ + 9.
#[test]
fn a_step_reaches_beyond_32_bits() {
    for gpu in gpus() {
        let stream = gpu.stream().unwrap();
        let len = (LEN - START) as usize;
        let (grad, param, slot) =
            (sparse(&gpu, 2 * LEN), sparse(&gpu, 2 * LEN), sparse(&gpu, 4 * LEN));
        let values: Vec<bf16> = (0..len).map(|i| bf16::from_f32((i % 7) as f32)).collect();
        put(&gpu, stream, grad.offset(2 * START as usize), &values);
        put(&gpu, stream, param.offset(2 * START as usize), &vec![bf16::from_f32(2.0); len]);
        put(&gpu, stream, slot.offset(4 * START as usize), &vec![1.0f32; len]);
        let chunk = Chunk { start: START, tensor: 0, len: len as u32 };
        let zero = <Tensor as bytemuck::Zeroable>::zeroed();
        let tensor = Tensor { len: LEN, chunks: 1, ..zero };
        let scalars =
            Scalars { a: 0.5, b1: 0.5, c1: 1.0, active: 1, ..bytemuck::Zeroable::zeroed() };
        let status = Status { factor: 1.0, inverse: 1.0, ..bytemuck::Zeroable::zeroed() };
        let chunks = table(&gpu, stream, &[chunk]);
        let tensors = table(&gpu, stream, &[tensor]);
        let status = table(&gpu, stream, &[status]);
        let grads = table(&gpu, stream, &[grad.0]);
        let partials =
            table(&gpu, stream, &[Partial { sum_squares: 0.0, non_finite: 0, tensor: 0 }]);
        let stats = Stats {
            chunks,
            tensors,
            grads,
            status,
            partials,
            chunk_count: 1,
            tensor_count: 1,
            grad: 0,
            pad: 0,
        };
        let step = Step {
            chunks,
            tensors,
            status,
            grads,
            scalars: table(&gpu, stream, &[scalars]),
            params: table(&gpu, stream, &[param.0]),
            slot0: slot.0,
            chunk_count: 1,
            tensor_count: 1,
            state_len: LEN,
            row: Row::SgdMomentum as u32,
            moment: 2,
            mode: MASTER_NEAREST,
            ..bytemuck::Zeroable::zeroed()
        };
        for block in [Block::Stats(stats), Block::Step(step)] {
            // SAFETY: every address is an allocation made above, of the lengths given.
            unsafe { gpu.launch(stream, &Launch::Optim(block)) }.unwrap();
        }
        let partial: Partial = get(&gpu, stream, Address(partials), 1)[0];
        let squares: f64 = values.iter().map(|v| v.to_f64() * v.to_f64()).sum();
        assert_eq!((partial.sum_squares, partial.non_finite), (squares, 0));
        let moved: Vec<f32> = get(&gpu, stream, slot.offset(4 * START as usize), len);
        let params: Vec<bf16> = get(&gpu, stream, param.offset(2 * START as usize), len);
        for (i, (b, p)) in moved.iter().zip(&params).enumerate() {
            let expected = 0.5 + values[i].to_f32();
            assert_eq!(
                (*b, p.to_f32()),
                (expected, bf16::from_f32(2.0 - 0.5 * expected).to_f32()),
                "{i}"
            );
        }
    }
}

/// Unpacking from a bucket at an offset beyond 2³¹.
#[test]
fn a_bucket_reaches_beyond_32_bits() {
    for gpu in gpus() {
        let stream = gpu.stream().unwrap();
        let len = 2_057usize;
        let bucket = sparse(&gpu, 2 * LEN + 2 * len as u64);
        put(&gpu, stream, bucket.offset(2 * LEN as usize), &vec![bf16::from_f32(3.0); len]);
        let to = gpu.alloc(4 * len).unwrap();
        let block = reduce::Unpack {
            shards: table(&gpu, stream, &[bucket.0]),
            to: to.0,
            partials: gpu.alloc(size_of::<Partial>()).unwrap().0,
            shard: LEN + len as u64,
            offset: LEN,
            len: len as u64,
            factor: 0.5,
            gradient_type: 2,
            wire: 0,
            tensor: 0,
        };
        // SAFETY: every address is an allocation made above, of the lengths given.
        unsafe { gpu.launch(stream, &Launch::Reduce(reduce::Block::Unpack(block))) }.unwrap();
        assert_eq!(get::<f32>(&gpu, stream, to, len), vec![1.5; len]);
    }
}

/// B-08, B-09, D-04: an image that is not what the build made, that was made for other parameter
/// blocks, or that is for another architecture, is refused, with the reason.
#[test]
fn images_that_do_not_fit_are_refused() {
    for gpu in gpus() {
        gpu.enter().unwrap();
        let target = gpu.driver.vendor.name;
        let ours =
            || images().iter().filter(|image| image.target == target && image.format != "cubin");
        let load = |image: &Image, arch: &str| Kernels::load_from(&[image], &gpu.driver, arch);
        for image in ours() {
            let mut bytes = image.bytes.to_vec();
            let abi = ABI.to_le_bytes();
            let text = ABI.to_string();
            // The number itself: eight bytes of a code object's data, digits of PTX.
            let at = bytes
                .windows(8)
                .position(|w| w == abi)
                .or_else(|| bytes.windows(text.len()).position(|w| w == text.as_bytes()));
            let at = at.expect("the image says its ABI");
            bytes[at] ^= 1;
            let bytes: &'static [u8] = bytes.leak();
            let damaged = Image { bytes, ..*image };
            let Err(Unloadable::Damaged(reason)) = load(&damaged, &gpu.info.arch) else {
                panic!("a damaged image was loaded")
            };
            assert!(reason.contains("not what the build made"), "{reason}");
            // Whole, but made for something else.
            let foreign = Image { checksum: checksum(bytes), ..damaged };
            let Err(Unloadable::Damaged(reason)) = load(&foreign, &gpu.info.arch) else {
                panic!("an image with another ABI was loaded")
            };
            assert!(reason.contains("other parameter blocks"), "{reason}");
            for arch in ["sm_75", "gfx1030"] {
                let Err(Unloadable::NoImage(reason)) = load(image, arch) else {
                    panic!("an image for another architecture was loaded")
                };
                assert!(reason.contains(image.arch) && reason.contains(arch), "{reason}");
            }
        }
        assert!(ours().count() > 0);
    }
}

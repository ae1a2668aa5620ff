//! Index arithmetic beyond 2³¹ elements, on memory of which only the ends exist: the virtual GPU's
//! allocations cost what is touched, and are not filled here.

use super::super::{Address, Backend, StreamId};
use std::sync::OnceLock;

use super::super::cpu::{Cpu, gemm};
use super::image::{Kernels, Unloadable};
use super::{Driver, Gpu, Vendor};
use crate::bf16;
use crate::kernel::Launch;
use crate::kernel::image::{ABI, Image, checksum, images};
use crate::kernel::params::optim::{
    Block, Chunk, MASTER_NEAREST, Scalars, Stats, Status, Step, Tensor,
};
use crate::kernel::params::{Partial, reduce};
use crate::kernel::table::optim::Row;

/// Elements before an offset in a bucket.
const LEN: u64 = (1 << 31) + 9;
/// Where the last chunk of a tensor starts and ends: before 2³¹, behind it, and across it.
const LAST_CHUNKS: [(u64, u64); 3] =
    [((1 << 31) - 16_384, (1 << 31) - 1), (1 << 31, (1 << 31) + 1), ((1 << 31) - 16_368, LEN)];

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

/// What a tensor's last chunk has become: gradients' sum of squares, parameters, slots, LAMB's two norms.
type Outcome = (f64, Vec<bf16>, [Vec<u32>; 3], Vec<f64>);

/// Stats and one rule's step of bf16 parameters with f32 moments, over one chunk of `len` elements at `start` of a
/// tensor that has nothing else in memory.
fn last_chunk(
    backend: &dyn Backend,
    take: &dyn Fn(u64) -> Address,
    row: Row,
    (start, len): (u64, usize),
) -> Outcome {
    let stream = backend.stream().unwrap();
    let put = |to: Address, bytes: &[u8]| {
        // SAFETY: inside an allocation of the test's.
        unsafe { backend.upload(stream, to, bytes) }.unwrap();
    };
    fn get<T: bytemuck::Pod>(
        backend: &dyn Backend,
        stream: StreamId,
        from: Address,
        len: usize,
    ) -> Vec<T> {
        let mut values = vec![T::zeroed(); len];
        // SAFETY: inside an allocation of the test's, written before.
        unsafe { backend.download(stream, from, bytemuck::cast_slice_mut(&mut values)) }.unwrap();
        values
    }
    fn table<T: bytemuck::Pod>(backend: &dyn Backend, stream: StreamId, values: &[T]) -> u64 {
        let to = backend.alloc(size_of_val(values)).unwrap();
        // SAFETY: just allocated, as long.
        unsafe { backend.upload(stream, to, bytemuck::cast_slice(values)) }.unwrap();
        to.0
    }
    let whole = start + len as u64;
    let (grad, param) = (take(2 * whole), take(2 * whole));
    let slots = [0; 3].map(|_| take(4 * whole));
    let values: Vec<bf16> = (0..len).map(|i| bf16::from_f32((i % 7 + 1) as f32)).collect();
    put(grad.offset(2 * start as usize), bytemuck::cast_slice(&values));
    let params: Vec<bf16> = (0..len).map(|i| bf16::from_f32((i % 11) as f32)).collect();
    put(param.offset(2 * start as usize), bytemuck::cast_slice(&params));
    for (n, slot) in slots.iter().enumerate() {
        put(slot.offset(4 * start as usize), bytemuck::cast_slice(&vec![1.0 + n as f32; len]));
    }
    let table = |bytes: &[u8]| table(backend, stream, bytes);
    let chunk = Chunk { start, tensor: 0, len: len as u32 };
    let tensor = Tensor { len: whole, chunks: 1, ..bytemuck::Zeroable::zeroed() };
    let scalars = Scalars {
        a: 0.5,
        b1: 0.5,
        c1: 1.0,
        b2: 0.25,
        c2: 0.75,
        s: 1.0,
        n: 1.0,
        w: 0.125,
        eps: 1e-6,
        active: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    let status = Status { factor: 1.0, inverse: 1.0, ..bytemuck::Zeroable::zeroed() };
    let partials =
        table(bytemuck::bytes_of(&Partial { sum_squares: 0.0, non_finite: 0, tensor: 0 }));
    let (chunks, tensors) = (table(bytemuck::bytes_of(&chunk)), table(bytemuck::bytes_of(&tensor)));
    let (status, grads) = (table(bytemuck::bytes_of(&status)), table(bytemuck::bytes_of(&grad.0)));
    let norms = table(&[0; 16]);
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
        norms,
        scalars: table(bytemuck::bytes_of(&scalars)),
        params: table(bytemuck::bytes_of(&param.0)),
        slot0: slots[0].0,
        slot1: slots[1].0,
        slot2: slots[2].0,
        chunk_count: 1,
        tensor_count: 1,
        state_len: whole,
        row: row as u32,
        moment: 2,
        mode: MASTER_NEAREST,
        ..bytemuck::Zeroable::zeroed()
    };
    for block in [Block::Stats(stats), Block::Step(step)] {
        // SAFETY: every address is an allocation made above, of the lengths given.
        unsafe { backend.launch(stream, &Launch::Optim(block)) }.unwrap();
    }
    let partial: Partial = get(backend, stream, Address(partials), 1)[0];
    let params = get(backend, stream, param.offset(2 * start as usize), len);
    let moved = slots.map(|slot| get(backend, stream, slot.offset(4 * start as usize), len));
    let norms = get(backend, stream, Address(norms), 2);
    for (address, size) in [(grad, 2), (param, 2)].into_iter().chain(slots.map(|slot| (slot, 4))) {
        // SAFETY: taken above, used by nobody any more.
        unsafe { backend.free(address, (size * whole) as usize) };
    }
    (partial.sum_squares, params, moved, norms)
}

/// Every rule, on the last chunk of tensors of 2³¹ − 1, 2³¹ + 1 and 2³¹ + 9 elements: what the CPU makes of the
/// same chunk of a tensor that begins there.
#[test]
fn a_step_reaches_beyond_32_bits() {
    let rules = [
        Row::AdamW,
        Row::AdamWMax,
        Row::Adam,
        Row::AdamMax,
        Row::Sgd,
        Row::SgdMomentum,
        Row::Adagrad,
        Row::Lion,
        Row::LambMoments,
        Row::LambApply,
    ];
    let cpu = Cpu::new(1, gemm::Path::detect());
    for gpu in gpus() {
        for row in rules {
            for (start, end) in LAST_CHUNKS {
                let len = (end - start) as usize;
                let found = last_chunk(&gpu, &|bytes| sparse(&gpu, bytes), row, (start, len));
                let own = |bytes| cpu.alloc(bytes as usize).unwrap();
                let expected = last_chunk(&cpu, &own, row, (0, len));
                assert!(found.0 > 0.0 && found == expected, "{row:?} of {end}");
            }
        }
    }
}

/// A driver without one of the functions is too old, and the function is named (D-02).
#[test]
fn a_driver_that_lacks_a_function_is_an_error() {
    for gpu in gpus() {
        // A library that every program of this system has, and that is no driver.
        static VENDOR: OnceLock<Vendor> = OnceLock::new();
        let vendor = Vendor { libraries: &["libm.so.6"], ..*gpu.driver.vendor };
        let reason = Driver::open(VENDOR.get_or_init(|| vendor)).unwrap_err();
        assert!(reason.contains("Init: it is too old"), "{reason}");
    }
}

/// An event that the host waits for, outside of the lock, marks nothing else meanwhile: the wait would go on to that.
#[test]
fn an_event_that_is_waited_for_is_not_recorded_again() {
    for gpu in gpus() {
        let (first, second) = (gpu.stream().unwrap(), gpu.stream().unwrap());
        let memory = gpu.alloc(100).unwrap();
        let fill = |stream| {
            // SAFETY: allocated above; the streams are waited for in turn.
            unsafe { gpu.fill(stream, memory, 1, 100) }.unwrap();
            gpu.record(stream).unwrap()
        };
        let ticket = fill(first);
        let event = gpu.with(|state| Ok(state.order.await_event(ticket))).unwrap().unwrap();
        gpu.sync_all().unwrap(); // another thread sees that it was reached
        let later = fill(second);
        let marked = gpu.with(|state| Ok(state.order.await_event(later))).unwrap().unwrap();
        assert_ne!(event, marked);
        gpu.with(|state| state.order.awaited(ticket, event)).unwrap();
        gpu.with(|state| state.order.awaited(later, marked)).unwrap();
        gpu.sync_all().unwrap();
        let again = fill(first);
        let spare = gpu.with(|state| Ok(state.order.await_event(again))).unwrap().unwrap();
        assert!([event, marked].contains(&spare), "it is used again afterwards");
        gpu.with(|state| state.order.awaited(again, spare)).unwrap();
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
        let piece = reduce::Piece { start: LEN, len: len as u32, tensor: 0 };
        let target = reduce::Target { to: to.0, offset: LEN, partial: 0 };
        let block = reduce::Unpack {
            shards: table(&gpu, stream, &[bucket.0]),
            pieces: table(&gpu, stream, &[piece]),
            targets: table(&gpu, stream, &[target]),
            partials: gpu.alloc(size_of::<Partial>()).unwrap().0,
            shard: LEN + len as u64,
            count: 1,
            factor: 0.5,
            gradient_type: 2,
            wire: 0,
            padding: 0,
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
            // The number itself: eight bytes of a code object's data, digits of PTX, with a sign it may be.
            let text = (ABI as i64).to_string();
            let digits = || bytes.windows(text.len()).position(|w| w == text.as_bytes());
            let last = || digits().map(|at| at + text.len() - 1);
            let at = bytes.windows(8).position(|w| w == abi).or_else(last);
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

//! What the kernels are run on: small inputs that reach as much of their code as they can.
//!
//! Lengths are odd, addresses are misaligned by an element, tensors are many, blocks are several,
//! values are NaN, infinite and subnormal here and there: a change that no input can show would be
//! counted as one that no test can find.

mod around;
mod gemm;
mod optim;
mod product;
mod reduce;
mod roof;

use halfstep_vgpu::launch::Grid;
use halfstep_vgpu::memory::GlobalMemory;
use halfstep_vgpu::number::{BF16, F16, Rounding};

/// Storage types, by the numbers that parameter blocks have for them.
pub const BF16_TYPE: u32 = 0;
pub const F16_TYPE: u32 = 1;
pub const F32_TYPE: u32 = 2;
pub const TYPES: [u32; 3] = [BF16_TYPE, F16_TYPE, F32_TYPE];

/// One launch: what lies in memory, and with what it is started.
pub struct Case {
    pub grid: Grid,
    pub params: Vec<u8>,
    /// Contents, or a length of nothing defined. Memory gives the same addresses every time.
    regions: Vec<Result<Vec<u8>, u64>>,
}

impl Case {
    /// The case, with so many bytes of shared memory asked for.
    pub fn asking(self, shared: u32) -> Self {
        Self { grid: Grid { shared, ..self.grid }, ..self }
    }

    /// Puts the inputs in fresh memory.
    pub fn place(&self, memory: &mut GlobalMemory) {
        for region in &self.regions {
            match region {
                Ok(data) => memory.allocate_with(data.clone(), "input"),
                Err(len) => memory.allocate(*len, "output"),
            };
        }
    }
}

/// Makes cases.
#[derive(Default)]
pub struct Builder {
    memory: GlobalMemory,
    regions: Vec<Result<Vec<u8>, u64>>,
    seed: u64,
}

impl Builder {
    /// Memory with contents.
    pub fn bytes(&mut self, data: Vec<u8>) -> u64 {
        let at = self.memory.allocate(data.len() as u64, "");
        self.regions.push(Ok(data));
        at
    }

    /// Memory with nothing defined.
    pub fn room(&mut self, bytes: u64) -> u64 {
        self.regions.push(Err(bytes));
        self.memory.allocate(bytes, "")
    }

    /// Plain numbers or parameter blocks.
    pub fn table<T: Plain>(&mut self, rows: &[T]) -> u64 {
        self.bytes(rows.iter().flat_map(Plain::bytes).collect())
    }

    /// Values of a storage type, `before` elements past a multiple of 256 bytes.
    pub fn values(&mut self, values: &[f32], ty: u32, before: usize) -> u64 {
        let mut data = vec![0; before * width(ty)];
        for x in values {
            data.extend_from_slice(&narrow(*x, ty).to_le_bytes()[..width(ty)]);
        }
        self.bytes(data) + (before * width(ty)) as u64
    }

    /// Room for as many.
    pub fn room_for(&mut self, len: usize, ty: u32, before: usize) -> u64 {
        self.room(((before + len) * width(ty)) as u64) + (before * width(ty)) as u64
    }

    /// Numbers of any size that a training run has; some are not numbers if `odd`.
    pub fn noise(&mut self, len: usize, odd: bool) -> Vec<f32> {
        // NaN with a payload; the middle between two of bf16, even and odd; between two of f16.
        const ODD: [f32; 15] = [
            f32::NAN,
            f32::INFINITY,
            -0.0,
            1e-39,
            f32::NEG_INFINITY,
            6e-8,
            65504.0,
            3e38,
            f32::from_bits(0x7fa0_0001),
            f32::from_bits(0x3f80_8000),
            f32::from_bits(0x3f81_8000),
            f32::from_bits(0xbf80_1000),
            f32::from_bits(0xbf80_3000),
            1e-7,
            65520.0,
        ];
        self.seed += 1;
        let mut random = crate::random::Random::new(self.seed);
        let value = |i: usize| match odd && i % 11 == 3 {
            true => ODD[i / 11 % ODD.len()],
            false => (random.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0) * 4.0,
        };
        (0..len).map(value).collect()
    }

    /// The case, once everything is in its place.
    pub fn launch(self, blocks: [u32; 3], threads: u32, params: Vec<u8>) -> Case {
        let grid = Grid { blocks, threads: [threads, 1, 1], shared: 0 };
        Case { grid, params, regions: self.regions }
    }
}

/// Something whose bytes a kernel reads.
pub trait Plain {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! plain {
    ($($type:ty)*) => { $(impl Plain for $type {
        fn bytes(&self) -> Vec<u8> { self.to_le_bytes().into() }
    })* };
}
plain! { u16 u32 u64 f32 f64 }

/// Arguments one after the other, each at a multiple of its size.
pub fn arguments(list: &[&dyn Plain]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for argument in list {
        let bytes = argument.bytes();
        out.resize(out.len().next_multiple_of(bytes.len()), 0);
        out.extend_from_slice(&bytes);
    }
    out
}

fn width(ty: u32) -> usize {
    if ty == F32_TYPE { 4 } else { 2 }
}

fn narrow(x: f32, ty: u32) -> u32 {
    match ty {
        BF16_TYPE => BF16.from_f64(x.into(), Rounding::Nearest) as u32,
        F16_TYPE => F16.from_f64(x.into(), Rounding::Nearest) as u32,
        _ => x.to_bits(),
    }
}

/// Of the products, which differ in layouts and types only, those that a sample takes: each loop, each
/// type, each layout.
const SAMPLED: [&str; 6] =
    ["bf16_nt", "f16_tn", "f32_tt", "bf16_nn_128", "f16_tn_128", "bf16_nt_256x128"];

/// Whether a sample of mutants takes some of a kernel's.
pub fn sampled(kernel: &str) -> bool {
    let product = kernel.strip_prefix("hs_gemm_product_");
    product.is_none_or(|product| SAMPLED.contains(&product))
}

/// The cases of a kernel; none if nobody wrote any.
pub fn of(kernel: &str, ptx: bool) -> Vec<Case> {
    if kernel.starts_with("hs_optim") {
        optim::cases(kernel)
    } else if kernel.starts_with("hs_reduce") {
        reduce::cases(kernel)
    } else if kernel.starts_with("hs_roof") {
        roof::cases()
    } else if kernel.starts_with("hs_gemm") {
        product::cases(kernel, ptx)
    } else if kernel.starts_with("gemm_") {
        gemm::cases(kernel, ptx)
    } else {
        Vec::new()
    }
}

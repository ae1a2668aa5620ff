//! The kernels of `gemm` on the CPU: a batch or a list of groups becomes single products, and each
//! of them runs on the fast path or by the reference.

/// The body with the activation as a constant: its loop becomes vector code of its own.
macro_rules! for_activation {
    ($activation:expr, |$act:ident| $body:expr) => {
        for_activation!($activation, $act, $body, None Relu GeluTanh GeluErf Silu)
    };
    ($activation:expr, $act:ident, $body:expr, $($name:ident)*) => {
        match $activation {
            $(Activation::$name => {
                const $act: Activation = Activation::$name;
                $body
            })*
        }
    };
}

/// The body with the form that a path has for products of a type, or what there is where it has none: the reference.
macro_rules! with_form {
    ($path:expr, $input:expr, |$form:ident| $body:expr, $reference:expr) => {
        match $path.of($input) {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => with_form!($form = amx::Amx, $body),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Bf16 => with_form!($form = avx512bf16::Avx512Bf16, $body),
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => with_form!($form = avx512::Avx512, $body),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => with_form!($form = avx2::Avx2, $body),
            #[cfg(not(target_arch = "x86_64"))]
            Path::Amx | Path::Avx512Bf16 | Path::Avx512 | Path::Avx2 => $reference,
            Path::Portable => with_form!($form = portable::Portable, $body),
            Path::Reference => $reference,
        }
    };
    ($form:ident = $is:ty, $body:expr) => {{
        type $form = $is;
        $body
    }};
}

/// Calls a function generic over the storage type whose number is given.
macro_rules! by_type {
    ($number:expr, $function:ident $(::<$($more:ty),*>)?, $($argument:expr),*) => {
        match $number {
            BF16 => $function::<bf16 $($(, $more)*)?>($($argument),*),
            F16 => $function::<f16 $($(, $more)*)?>($($argument),*),
            _ => $function::<f32 $($(, $more)*)?>($($argument),*),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512bf16;
#[cfg(target_arch = "x86_64")]
mod by_rows;
mod cut;
#[cfg(target_arch = "x86_64")]
mod dots;
mod epilogue;
mod explain;
#[cfg(target_arch = "x86_64")]
mod few;
#[cfg(target_arch = "x86_64")]
mod few_columns;
mod finish;
mod form;
mod fused;
mod lanes;
mod map;
mod pack;
mod pairs;
mod panels;
mod path;
mod portable;
mod prefetch;
mod product;
mod slices;
mod sums;
mod swiglu;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tile512;
#[cfg(target_arch = "x86_64")]
mod unrolled;
#[cfg(target_arch = "x86_64")]
mod vendor;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(target_arch = "x86_64")]
mod words;
mod workspace;

pub(crate) use self::explain::explain;
pub(crate) use self::path::Path;
use super::threads::Threads;
use crate::gemm::reference;
use crate::kernel::params::gemm::{self as params, Block, Product, SwigluGrad};
use crate::{Dtype, Storage, bf16, f16};

/// Storage types as they are in parameter blocks.
const BF16: u32 = Dtype::Bf16 as u32;
const F16: u32 = Dtype::F16 as u32;

/// Multiply-adds of a product below which the members of a batch run side by side.
const SMALL: f64 = 1.6e7;

/// Runs one kernel.
///
/// # Safety
/// The addresses in the block are valid for the lengths it gives, and outputs are not touched by
/// anything else meanwhile.
pub(super) unsafe fn run(threads: &Threads, path: Path, block: &Block) {
    match block {
        Block::Product(block) => {
            // SAFETY: the caller's promise; members stay inside the block's sizes.
            unsafe { members(threads, block, |threads, member| single(threads, path, &member)) };
            // SAFETY: the caller's promise.
            unsafe { finish::finish(threads, path, block) }
        }
        // Here the product does both on its way.
        Block::Prepare(_) | Block::Combine(_) => {
            unreachable!("plans for the CPU make no such launch")
        }
        // SAFETY: the caller's promise.
        Block::SwigluGrad(block) => unsafe {
            by_type!(block.input, swiglu_grad, threads, path, block);
        },
    }
}

/// Calls `each` with every member of a batch, or every group, as a product of its own.
///
/// # Safety
/// As for [`run`].
unsafe fn members(threads: &Threads, block: &Product, each: impl Fn(&Threads, Product) + Sync) {
    if block.groups == 0 {
        let work = (block.m as f64) * (block.n as f64) * (block.k as f64);
        if block.batch > 1 && work < SMALL {
            // Members side by side, each on one thread.
            threads.run(block.batch as usize, |i| each(&Threads::new(1), member(block, i as u64)));
        } else {
            (0..block.batch).for_each(|i| each(threads, member(block, i)));
        }
        return;
    }
    let cuts_k = block.flags & params::FLAG_GROUPS_CUT_K != 0;
    let rows = if cuts_k { block.k } else { block.m };
    let input = element_bytes(block.input);
    let output = element_bytes(block.output);
    let mut start = 0;
    for g in 0..block.groups {
        // SAFETY: the list has `groups` entries (checked in operands.rs as `group_ends`).
        let end = unsafe { *(block.group_ends as *const u32).add(g as usize) };
        let end = u64::from(end).clamp(start, rows);
        let mut group = member(block, g);
        let skip = |address: u64, bytes: u64| if address == 0 { 0 } else { address + bytes };
        if cuts_k {
            group.k = end - start;
            group.a = block.a + start * block.lda * input;
            group.b = block.b + start * block.ldb * input;
            group.z = skip(block.z, start * block.ldz * input);
            group.fused_a = skip(block.fused_a, start * block.ldf * input);
            group.a_sums = skip(block.a_sums, g * block.m * output);
        } else {
            group.m = end - start;
            group.a = block.a + start * block.lda * input;
            group.c = skip(block.c, start * block.ldc * output);
            group.residual = skip(block.residual, start * block.ldr * output);
            group.z = skip(block.z, start * block.ldz * input);
            group.fused_a = skip(block.fused_a, start * block.ldf * input);
            group.d = block.d + start * block.ldd * output;
            group.preactivation = skip(block.preactivation, start * block.ldp * input);
        }
        start = end;
        if group.m > 0 {
            each(threads, group);
        }
    }
}

/// Member `i` of a batch; of a grouped product, with what each group has one of.
fn member(block: &Product, i: u64) -> Product {
    let (input, output) = (element_bytes(block.input), element_bytes(block.output));
    let at = |address: u64, stride: u64, bytes: u64| {
        if address == 0 { 0 } else { address + i * stride * bytes }
    };
    Product {
        a: at(block.a, block.stride_a, input),
        b: at(block.b, block.stride_b, input),
        c: at(block.c, block.stride_c, output),
        bias: at(block.bias, block.stride_bias, input),
        residual: at(block.residual, block.stride_residual, output),
        z: at(block.z, block.stride_z, input),
        d: at(block.d, block.stride_d, output),
        preactivation: at(block.preactivation, block.stride_preactivation, input),
        batch: 1,
        groups: 0,
        ..*block
    }
}

fn element_bytes(number: u32) -> u64 {
    if number == Dtype::F32 as u32 { 4 } else { 2 }
}

/// One product.
///
/// # Safety
/// As for [`run`].
unsafe fn single(threads: &Threads, path: Path, block: &Product) {
    // SAFETY: the caller's promise.
    unsafe {
        match (block.output == block.input, block.input) {
            (true, BF16) => on_path::<bf16, bf16>(threads, path, block),
            (true, F16) => on_path::<f16, f16>(threads, path, block),
            (false, BF16) => on_path::<bf16, f32>(threads, path, block),
            (false, F16) => on_path::<f16, f32>(threads, path, block),
            _ => on_path::<f32, f32>(threads, path, block),
        }
    }
}

/// One product by the form of the kernel that the device was made with.
///
/// # Safety
/// As for [`run`]. `Path::runs_here` held when the device was made.
unsafe fn on_path<T: Storage, O: Storage>(threads: &Threads, path: Path, block: &Product) {
    // SAFETY: the caller's promise.
    unsafe {
        with_form!(
            path,
            T::DTYPE,
            |F| by_form::<F, T, O>(threads, block),
            by_reference::<T, O>(block)
        )
    }
}

/// One product by a form of the kernel.
///
/// # Safety
/// As for [`run`]; the processor has the form's instructions.
unsafe fn by_form<F: form::Form, T: Storage, O: Storage>(threads: &Threads, block: &Product) {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if F::VECTOR {
            if few::fits(block) {
                return few::product::<F::Around, T, O>(threads, block);
            }
            if few_columns::fits(block) {
                return few_columns::product::<F::Around, T, O>(threads, block);
            }
        }
        product::product::<F, T, O>(threads, block);
    }
}

/// One product by the reference.
///
/// # Safety
/// As for [`run`].
unsafe fn by_reference<T: Storage, O: Storage>(block: &Product) {
    // SAFETY: the caller's promise.
    let slices = unsafe { slices::slices::<T, O>(block) };
    reference::product(block, slices);
}

/// The gradients of SwiGLU's halves, by the form of the kernel that the device was made with.
///
/// # Safety
/// As for [`run`]. `Path::runs_here` held when the device was made.
unsafe fn swiglu_grad<T: Storage>(threads: &Threads, path: Path, block: &SwigluGrad) {
    // SAFETY: the caller's promise.
    unsafe {
        with_form!(
            path,
            T::DTYPE,
            |F| swiglu::gradients::<F, T>(threads, block),
            swiglu::by_reference::<T>(block)
        )
    }
}

//! `halfstep plan gemm`.

use std::io::Write;
use std::num::NonZeroUsize;

use halfstep::gemm::{DataGrad, Gemm, Layout, Subnormals, Tile, WeightGrad};
use halfstep::{Device, Dtype, Storage, bf16, f16};

use crate::device;
use crate::output::Failure;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Rows of the activations.
    #[arg(long)]
    m: usize,
    /// Columns of the result: output features.
    #[arg(long)]
    n: usize,
    /// Length of the sums: input features.
    #[arg(long)]
    k: usize,
    /// Which of a linear layer's products, y = x·w, dx = dy·wᵀ, dw = dyᵀ·x.
    #[arg(long, value_enum, default_value = "forward")]
    product: Product,
    /// Of the forward product: what is stored transposed (T) of A and B; nothing unless given.
    #[arg(long, value_enum, ignore_case = true)]
    layout: Option<Transposes>,
    /// Type of the operands.
    #[arg(long, value_enum, default_value = "bf16")]
    input: Type,
    /// Type of the result: the operands', or f32. The operands' unless given; of weight gradients f32.
    #[arg(long, value_enum)]
    output: Option<Type>,
    /// Of the forward product: so many of the same shape.
    #[arg(long)]
    batch: Option<usize>,
    /// Pin the tile on a GPU: `64x64`, `128x128`, `256x128`, `128x256`, `128x64` (CUDA) or `256x256` (HIP), rows first.
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = tile)]
    tile: Option<Tile>,
    /// Pin in how many parts a GPU cuts the sums.
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u32).range(1..=64))]
    split: Option<u32>,
    /// Where: `cpu`, `cpu:FORM` of its products (`cpu:amx-bf16`), `cuda:N` or `hip:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Threads of the CPU backend; as many as there are cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Product {
    Forward,
    DataGrad,
    WeightGrad,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Transposes {
    Nn,
    Nt,
    Tn,
    Tt,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Type {
    Bf16,
    F16,
    F32,
}

impl Type {
    fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::Bf16,
            Self::F16 => Dtype::F16,
            Self::F32 => Dtype::F32,
        }
    }
}

/// Plans and prints.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let name = &args.device;
    let device = device::open(name, args.threads)
        .map_err(|reason| Failure::Reason(format!("--device {name}: {reason}")))?;
    if args.product != Product::Forward {
        for (name, given) in
            [("--layout", args.layout.is_some()), ("--batch", args.batch.is_some())]
        {
            if given {
                return Err(Failure::Reason(format!("{name} is of the forward product alone")));
            }
        }
    }
    let output = match (args.product, args.output) {
        (Product::WeightGrad, None) => Type::F32,
        (_, output) => output.unwrap_or(args.input),
    };
    let text = match (args.input, output) {
        (Type::Bf16, Type::Bf16) => explain::<bf16, bf16>(args, &device),
        (Type::Bf16, Type::F32) => explain::<bf16, f32>(args, &device),
        (Type::F16, Type::F16) => explain::<f16, f16>(args, &device),
        (Type::F16, Type::F32) => explain::<f16, f32>(args, &device),
        (Type::F32, Type::F32) => explain::<f32, f32>(args, &device),
        (input, output) => {
            let (input, output) = (input.dtype(), output.dtype());
            let reason =
                format!("{input} in, {output} out: a result has its operands' type, or f32");
            return Err(Failure::Reason(reason));
        }
    }?;
    writeln!(out, "{text}")?;
    let [m, n, k] = [args.m, args.n, args.k].map(|size| size as f64);
    let batch = args.batch.unwrap_or(1) as f64;
    let flops = 2.0 * m * n * k * batch;
    let (wide, narrow) = (output.dtype().bytes() as f64, args.input.dtype().bytes() as f64);
    let [result, first, second] = match args.product {
        Product::Forward => [m * n, m * k, k * n],
        Product::DataGrad => [m * k, m * n, k * n],
        Product::WeightGrad => [k * n, m * n, m * k],
    };
    let bytes = batch * (wide * result + narrow * (first + second));
    writeln!(
        out,
        "{:.3} GFLOP; at least {:.3} MB of operands and result: {:.1} FLOP a byte",
        1e-9 * flops,
        1e-6 * bytes,
        if bytes > 0.0 { flops / bytes } else { 0.0 }
    )?;
    Ok(true)
}

fn tile(text: &str) -> Result<Tile, String> {
    let sizes = text
        .split_once(['x', '×'])
        .and_then(|(rows, columns)| Some(Tile::new(rows.parse().ok()?, columns.parse().ok()?)));
    sizes.ok_or_else(|| format!("{text}: rows and columns, as in 256x128"))
}

fn explain<T: Storage, O: Storage>(args: &Args, device: &Device) -> halfstep::Result<String> {
    // A device whose matrix unit flushes is asked to: this is about tiles, not about subnormals.
    let flushes = device.info().flushes_subnormals && T::DTYPE != Dtype::F32;
    let subnormals = if flushes { Subnormals::Flush } else { Subnormals::default() };
    let Args { m, n, k, split, .. } = *args;
    // Gives a builder what the caller pins.
    macro_rules! pinned {
        ($builder:expr) => {{
            let builder = $builder.subnormals(subnormals).split(split.unwrap_or(0));
            match args.tile {
                Some(tile) => builder.tile(tile),
                None => builder,
            }
        }};
    }
    match args.product {
        Product::Forward => {
            let layout = match args.layout.unwrap_or(Transposes::Nn) {
                Transposes::Nn => Layout::NN,
                Transposes::Nt => Layout::NT,
                Transposes::Tn => Layout::TN,
                Transposes::Tt => Layout::TT,
            };
            let gemm = Gemm::new(m, n, k).layout(layout).batch(args.batch.unwrap_or(1));
            Ok(pinned!(gemm).plan::<T, O>(device)?.explain())
        }
        Product::DataGrad => Ok(pinned!(DataGrad::new(m, k, n)).plan::<T, O>(device)?.explain()),
        Product::WeightGrad => {
            Ok(pinned!(WeightGrad::new(m, k, n)).plan::<T, O>(device)?.explain())
        }
    }
}

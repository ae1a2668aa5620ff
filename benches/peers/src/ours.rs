//! halfstep itself.

use std::num::NonZeroUsize;

use halfstep::gemm::{Activation, Gemm, Layout, Operands, Plan};
use halfstep::optim::{AdamW, Config, Group, Optimizer, Scaler, Tensor};
use halfstep::{Buffer, Device, Read, Storage, Stream, Write, bf16, f16};

use crate::case::{Case, Dtype, Peer, Product, Work, look};
use crate::data;

/// halfstep with a number of threads.
pub struct Ours {
    /// What `Device::cpu()` is.
    chain: Device,
    /// For products of bf16, where the processor has it: other libraries use it too.
    amx: Option<Device>,
    /// Whether only products that AMX would compute are, by the other device.
    by_chain: bool,
}

impl Ours {
    pub fn new(threads: usize, by_chain: bool) -> Self {
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        Self {
            chain: Device::cpu_with_threads(threads),
            amx: Device::cpu_with_arch(threads, "amx-bf16").ok(),
            by_chain,
        }
    }

    fn device(&self, case: &Case) -> Result<&Device, String> {
        let by_tiles = matches!(case, Case::Gemm { dtype: Dtype::Bf16, m: 2.., .. });
        let amx = self.amx.as_ref().filter(|_| by_tiles);
        match (amx, self.by_chain) {
            (Some(amx), false) => Ok(amx),
            (None, true) => Err("it is halfstep's only way".into()),
            _ => Ok(&self.chain),
        }
    }
}

fn text(error: halfstep::Error) -> String {
    error.to_string()
}

impl Peer for Ours {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        let device = self.device(case)?;
        match *case {
            Case::Gemm { product, dtype, m, n, k } => match dtype {
                Dtype::F32 => Ok(Box::new(Multiply::<f32>::new(device, product, m, n, k)?)),
                Dtype::Bf16 => Ok(Box::new(Multiply::<bf16>::new(device, product, m, n, k)?)),
                Dtype::F16 => Ok(Box::new(Multiply::<f16>::new(device, product, m, n, k)?)),
            },
            Case::Adamw { ref lengths } => Ok(Box::new(Step::new(device, lengths)?)),
            Case::Convert { from, to, len } => match (from, to) {
                (Dtype::F32, Dtype::Bf16) => Ok(Box::new(Convert::<bf16>::new(device, len, true)?)),
                (Dtype::F32, Dtype::F16) => Ok(Box::new(Convert::<f16>::new(device, len, true)?)),
                (Dtype::Bf16, Dtype::F32) => {
                    Ok(Box::new(Convert::<bf16>::new(device, len, false)?))
                }
                (Dtype::F16, Dtype::F32) => Ok(Box::new(Convert::<f16>::new(device, len, false)?)),
                _ => Err("no such conversion".into()),
            },
        }
    }
}

struct Multiply<T: Storage> {
    forward: bool,
    stream: Stream,
    plan: Plan<T, T>,
    // Aligned to lines of the cache, as other libraries' own memory is.
    a: Buffer<T>,
    b: Buffer<T>,
    bias: Buffer<T>,
    d: Buffer<T>,
}

impl<T: Storage> Multiply<T> {
    fn new(
        device: &Device,
        product: Product,
        m: usize,
        n: usize,
        k: usize,
    ) -> Result<Self, String> {
        let forward = product == Product::Forward;
        let layout = match product {
            Product::Forward | Product::Plain => Layout::NN,
            Product::DataGrad => Layout::NT,
            Product::WeightGrad => Layout::TN,
        };
        let activation = if forward { Activation::GeluErf } else { Activation::None };
        Ok(Self {
            forward,
            stream: device.stream().map_err(text)?,
            plan: Gemm::new(m, n, k)
                .layout(layout)
                .activation(activation)
                .plan(device)
                .map_err(text)?,
            a: device.upload(&data::values(m * k, data::A, 1.0)).map_err(text)?,
            b: device.upload(&data::values(k * n, data::B, data::WEIGHT)).map_err(text)?,
            bias: device.upload(&data::values(n, data::BIAS, data::WEIGHT)).map_err(text)?,
            d: device.zeros(m * n).map_err(text)?,
        })
    }
}

impl<T: Storage> Work for Multiply<T> {
    fn run(&mut self) {
        let bias = self.forward.then_some(&self.bias as &dyn Read<T>);
        let operands = Operands { bias, ..Operands::new(&self.a, &self.b, &mut self.d) };
        self.plan.run(&self.stream, operands).expect("checked when planned");
    }

    fn look(&mut self) -> Vec<f64> {
        let d = self.d.to_vec(&self.stream).expect("it is on the CPU");
        look(&d, |value| value.widen().into())
    }
}

struct Step {
    stream: Stream,
    optimizer: Optimizer<bf16, bf16>,
    params: Vec<Vec<bf16>>,
    grads: Vec<Vec<bf16>>,
}

impl Step {
    fn new(device: &Device, lengths: &[usize]) -> Result<Self, String> {
        let stream = device.stream().map_err(text)?;
        let tensors = lengths.iter().enumerate().map(|(i, &len)| Tensor::new(format!("t{i}"), len));
        let config = Config {
            clip: Some(1.0),
            scaler: Scaler::Fixed(data::LOSS_SCALE.into()),
            ..Config::default()
        };
        let group = Group::new(AdamW::default()).tensors(tensors);
        let mut optimizer = Optimizer::new(device, &[group], config).map_err(text)?;
        let mut params: Vec<Vec<bf16>> =
            lengths.iter().map(|&len| vec![bf16::narrow(0.0); len]).collect();
        let grads = lengths
            .iter()
            .map(|&len| data::values(len, data::B, data::GRADIENT * data::LOSS_SCALE))
            .collect();
        let masters: Vec<Vec<f32>> =
            lengths.iter().map(|&len| data::values(len, data::A, 1.0)).collect();
        let reads: Vec<&dyn Read<f32>> = masters.iter().map(|m| m as &dyn Read<f32>).collect();
        let mut writes: Vec<&mut dyn Write<bf16>> =
            params.iter_mut().map(|p| p as &mut dyn Write<bf16>).collect();
        optimizer.init_from_f32(&stream, &reads, &mut writes).map_err(text)?;
        Ok(Self { stream, optimizer, params, grads })
    }
}

impl Work for Step {
    fn run(&mut self) {
        let mut params: Vec<&mut dyn Write<bf16>> =
            self.params.iter_mut().map(|p| p as &mut dyn Write<bf16>).collect();
        let grads: Vec<Option<&dyn Read<bf16>>> =
            self.grads.iter().map(|g| Some(g as &dyn Read<bf16>)).collect();
        self.optimizer.run(&self.stream, &mut params, &grads).expect("checked when made");
    }

    fn look(&mut self) -> Vec<f64> {
        let first =
            self.optimizer.master(&self.stream, 0, &self.params[0]).expect("it is on the CPU");
        look(&first, f64::from)
    }
}

/// Between an optimizer's masters and parameters.
struct Convert<T: Storage> {
    narrow: bool,
    stream: Stream,
    optimizer: Optimizer<T, T>,
    params: Vec<T>,
}

impl<T: Storage> Convert<T> {
    fn new(device: &Device, len: usize, narrow: bool) -> Result<Self, String> {
        let stream = device.stream().map_err(text)?;
        let group = Group::new(AdamW::default()).tensor(Tensor::new("t", len));
        let mut optimizer = Optimizer::new(device, &[group], Config::default()).map_err(text)?;
        let mut params = data::values(len, data::A, 1.0);
        if narrow {
            let values: Vec<f32> = data::values(len, data::A, 1.0);
            optimizer.init_from_f32(&stream, &[&values], &mut [&mut params]).map_err(text)?;
        }
        Ok(Self { narrow, stream, optimizer, params })
    }
}

impl<T: Storage> Work for Convert<T> {
    fn run(&mut self) {
        if self.narrow {
            self.optimizer.write_params(&self.stream, &mut [&mut self.params])
        } else {
            self.optimizer.load_params(&self.stream, &[&self.params])
        }
        .expect("checked when made");
    }

    fn look(&mut self) -> Vec<f64> {
        if self.narrow {
            return look(&self.params, |value| value.widen().into());
        }
        let masters =
            self.optimizer.master(&self.stream, 0, &self.params).expect("it is on the CPU");
        look(&masters, f64::from)
    }
}

//! candle: eager operations in the type of the operands. (Its threads are rayon's.)

use candle_core::{DType, Device, Result as Candid, Tensor};
use halfstep::Storage;

use crate::case::{Case, Dtype, Peer, Product, Work};
use crate::data;

pub struct Candle;

impl Peer for Candle {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        let &Case::Gemm { product, dtype, m, n, k } = case else {
            return Err("products only".into());
        };
        Multiply::new(product, dtype, m, n, k)
            .map(|work| Box::new(work) as Box<dyn Work>)
            .map_err(|error| error.to_string())
    }
}

struct Multiply {
    product: Product,
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    d: Option<Tensor>,
}

/// Converted from f32, which rounds once, as everywhere.
fn tensor(
    len: usize,
    seed: u64,
    scale: f32,
    shape: (usize, usize),
    dtype: Dtype,
) -> Candid<Tensor> {
    let dtype = match dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F16 => DType::F16,
    };
    let values: Vec<f32> = data::values::<f32>(len, seed, scale);
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)
}

impl Multiply {
    fn new(product: Product, dtype: Dtype, m: usize, n: usize, k: usize) -> Candid<Self> {
        let a = if product == Product::WeightGrad { (k, m) } else { (m, k) };
        let b = if product == Product::DataGrad { (n, k) } else { (k, n) };
        Ok(Self {
            product,
            a: tensor(m * k, data::A, 1.0, a, dtype)?,
            b: tensor(k * n, data::B, data::WEIGHT, b, dtype)?,
            bias: tensor(n, data::BIAS, data::WEIGHT, (1, n), dtype)?,
            d: None,
        })
    }

    fn multiply(&self) -> Candid<Tensor> {
        match self.product {
            Product::Forward => self.a.matmul(&self.b)?.broadcast_add(&self.bias)?.gelu_erf(),
            Product::Plain => self.a.matmul(&self.b),
            Product::DataGrad => self.a.matmul(&self.b.t()?),
            Product::WeightGrad => self.a.t()?.matmul(&self.b),
        }
    }
}

impl Work for Multiply {
    fn run(&mut self) {
        self.d = Some(self.multiply().expect("shapes match"));
    }

    fn look(&mut self) -> Vec<f64> {
        let d = self.d.as_ref().expect("run once");
        let flat =
            d.flatten_all().and_then(|d| d.to_dtype(DType::F32)).and_then(|d| d.to_vec1::<f32>());
        crate::case::look(&flat.expect("it is on the CPU"), |value| value.widen().into())
    }
}

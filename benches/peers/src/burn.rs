//! burn: its backend for CPUs, `burn-flex`, by the operations that its tensors dispatch to, in the type of the operands.
//! (Its threads are rayon's.)

use burn_backend::ops::{ActivationOps, FloatTensorOps};
use burn_backend::{FloatDType, TensorData};
use burn_flex::{Flex, FlexDevice, FlexTensor};

use crate::case::{Case, Dtype, Peer, Product, Work};
use crate::data;

pub struct Burn;

impl Peer for Burn {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        match *case {
            Case::Gemm { product, dtype, m, n, k } => {
                Ok(Box::new(Multiply::new(product, dtype, m, n, k)))
            }
            _ => Err("products only".into()),
        }
    }
}

struct Multiply {
    product: Product,
    a: FlexTensor,
    b: FlexTensor,
    bias: FlexTensor,
    d: Option<FlexTensor>,
}

/// Converted from f32, which rounds once, as everywhere.
fn tensor(seed: u64, scale: f32, shape: [usize; 2], dtype: Dtype) -> FlexTensor {
    let values: Vec<f32> = data::values(shape[0] * shape[1], seed, scale);
    let tensor = Flex::float_from_data(TensorData::new(values, shape), &FlexDevice);
    match dtype {
        Dtype::F32 => tensor,
        Dtype::Bf16 => Flex::float_cast(tensor, FloatDType::BF16),
        Dtype::F16 => Flex::float_cast(tensor, FloatDType::F16),
    }
}

impl Multiply {
    fn new(product: Product, dtype: Dtype, m: usize, n: usize, k: usize) -> Self {
        let a = if product == Product::WeightGrad { [k, m] } else { [m, k] };
        let b = if product == Product::DataGrad { [n, k] } else { [k, n] };
        Self {
            product,
            a: tensor(data::A, 1.0, a, dtype),
            b: tensor(data::B, data::WEIGHT, b, dtype),
            bias: tensor(data::BIAS, data::WEIGHT, [1, n], dtype),
            d: None,
        }
    }
}

impl Work for Multiply {
    fn run(&mut self) {
        let (a, b) = (self.a.clone(), self.b.clone());
        self.d = Some(match self.product {
            Product::Forward => {
                Flex::gelu(Flex::float_add(Flex::float_matmul(a, b), self.bias.clone()))
            }
            Product::Plain => Flex::float_matmul(a, b),
            Product::DataGrad => Flex::float_matmul(a, Flex::float_transpose(b)),
            Product::WeightGrad => Flex::float_matmul(Flex::float_transpose(a), b),
        });
    }

    fn look(&mut self) -> Vec<f64> {
        let d = self.d.clone().expect("run once");
        let flat = Flex::float_cast(d, FloatDType::F32).into_data().try_to_vec::<f32>();
        crate::case::look(&flat.expect("it is of f32"), f64::from)
    }
}

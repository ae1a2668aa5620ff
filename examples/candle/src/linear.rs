//! A linear layer with its activation: one product forward, two backward.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Error, Layout, Module, Result, Shape, Tensor, WithDType};
use halfstep::gemm::{Activation, DataGradOperands, Operands, WeightGradOperands};
use halfstep::{Read, Write};

use crate::Element;
use crate::element::zeros;
use crate::lend::{Locked, elements, expect_shape};
use crate::products::Products;

const OP: &str = "halfstep-linear";

/// `y = act(x·wᵀ + b)` for x `[…, inputs]` of `T`, w `[outputs, inputs]` and b `[outputs]`.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor, Var};
/// use halfstep::{bf16, gemm::Activation};
///
/// # fn main() -> candle_core::Result<()> {
/// let w = Var::ones((4, 3), DType::BF16, &Device::Cpu)?;
/// let b = Var::zeros(4, DType::BF16, &Device::Cpu)?;
/// let (weight, bias) = (w.as_tensor().clone(), b.as_tensor().clone());
/// let layer = halfstep_candle::Linear::<bf16>::new(&halfstep::Device::cpu(), weight, bias, Activation::Relu)?;
/// let y = layer.forward(&Tensor::ones((2, 3), DType::BF16, &Device::Cpu)?)?;
/// assert_eq!(y.to_dtype(DType::F32)?.to_vec2::<f32>()?, [[3.0; 4]; 2]);
/// assert!(y.backward()?.get(&w).is_some());
/// # Ok(())
/// # }
/// ```
pub struct Linear<T> {
    device: halfstep::Device,
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
    /// By number of rows; the rest of a shape is the layer's own.
    products: Mutex<HashMap<usize, Arc<Products<T>>>>,
}

impl<T: Element> Linear<T> {
    /// A layer of a weight `[outputs, inputs]` and a bias `[outputs]`, which are trained where they are variables.
    pub fn new(
        device: &halfstep::Device,
        weight: Tensor,
        bias: Tensor,
        activation: Activation,
    ) -> Result<Self> {
        expect_shape("bias", &weight.dims2()?.0.into(), bias.shape())?;
        for (msg, tensor) in [("weight", &weight), ("bias", &bias)] {
            let (expected, got) = (<T as WithDType>::DTYPE, tensor.dtype());
            if expected != got {
                return Err(Error::UnexpectedDType { msg, expected, got }.bt());
            }
        }
        let (device, products) = (device.clone(), Mutex::default());
        Ok(Self { device, weight, bias, activation, products })
    }

    fn products(&self, rows: usize) -> Result<Arc<Products<T>>> {
        let mut kept = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(products) = kept.get(&rows) {
            return Ok(products.clone());
        }
        let (outputs, inputs) = self.weight.dims2()?;
        let products = Products::new(&self.device, (rows, inputs, outputs), self.activation);
        let products = Arc::new(products.map_err(Error::wrap)?);
        kept.insert(rows, products.clone());
        Ok(products)
    }
}

impl<T: Element> Module for Linear<T> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        dims.pop();
        let rows = dims.iter().product();
        expect_shape("x", &[&dims[..], &[inputs]].concat().into(), x.shape())?;
        dims.push(outputs);
        let trained = [x, &self.weight, &self.bias].iter().any(|tensor| tensor.track_op());
        let product = Product {
            products: self.products(rows)?,
            shape: dims.into(),
            keeps_z: trained && self.activation != Activation::None,
            z: OnceLock::new(),
        };
        x.apply_op3(&self.weight, &self.bias, product)
    }
}

/// One call of the layer: candle keeps it in the graph, and it keeps the pre-activation for the way back.
struct Product<T> {
    products: Arc<Products<T>>,
    /// Of the result.
    shape: Shape,
    keeps_z: bool,
    z: OnceLock<Vec<T>>,
}

impl<T: Element> CustomOp3 for Product<T> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x: &[T] = elements(OP, "x", x, x_layout)?;
        let weight: &[T] = elements(OP, "weight", weight, weight_layout)?;
        let bias: &[T] = elements(OP, "bias", bias, bias_layout)?;
        let mut y = zeros(self.shape.elem_count());
        let mut z = zeros(if self.keeps_z { y.len() } else { 0 });
        let mut operands = Operands::new(&x, &weight, &mut y);
        operands.bias = Some(&bias);
        operands.preactivation = self.keeps_z.then_some(&mut z as &mut dyn Write<T>);
        let Products { forward, stream, .. } = &*self.products;
        forward.run(stream, operands).map_err(Error::wrap)?;
        if self.keeps_z {
            self.z.get_or_init(|| z);
        }
        Ok((T::to_cpu_storage_owned(y), self.shape.clone()))
    }

    /// Gradients have the type of what they are of: candle adds them up in it.
    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let z = self.z.get().map(|z| z as &dyn Read<T>);
        let (x_lock, weight_lock, dy_lock) = (Locked::new(x), Locked::new(weight), Locked::new(dy));
        let x_elements: &[T] = x_lock.elements(OP, "x")?;
        let weight_elements: &[T] = weight_lock.elements(OP, "weight")?;
        let dy: &[T] = dy_lock.elements(OP, "gradient of y")?;
        let Products { data_grad, weight_grad, stream, .. } = &*self.products;

        let mut dx = None;
        if x.track_op() {
            let mut elements = zeros(x.elem_count());
            let mut operands = DataGradOperands::new(&dy, &weight_elements, &mut elements);
            operands.z = z;
            data_grad.run(stream, operands).map_err(Error::wrap)?;
            dx = Some(Tensor::from_vec(elements, x.shape(), x.device())?);
        }
        if !weight.track_op() && !bias.track_op() {
            return Ok((dx, None, None));
        }

        let (mut dw, mut db) = (zeros(weight.elem_count()), zeros(bias.elem_count()));
        let mut operands = WeightGradOperands::new(&dy, &x_elements, &mut dw);
        operands.z = z;
        operands.db = Some(&mut db);
        weight_grad.run(stream, operands).map_err(Error::wrap)?;
        let dw = Tensor::from_vec(dw, weight.shape(), weight.device())?;
        let db = Tensor::from_vec(db, bias.shape(), bias.device())?;
        Ok((dx, weight.track_op().then_some(dw), bias.track_op().then_some(db)))
    }
}

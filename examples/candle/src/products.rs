//! The three products of a linear layer for one number of rows: planned once, kept by the layer.

use halfstep::gemm::{
    Activation, DataGrad, DataGradPlan, Gemm, Layout, Plan, WeightGrad, WeightGradPlan,
};
use halfstep::{Device, Result, Stream};

use crate::Element;

pub(crate) struct Products<T> {
    /// `y = act(x·wᵀ + b)`
    pub forward: Plan<T, T>,
    /// `dx = (dy ∘ act'(z))·w`
    pub data_grad: DataGradPlan<T, T>,
    /// `dw = (dy ∘ act'(z))ᵀ·x`, `db = Σ dy ∘ act'(z)`
    pub weight_grad: WeightGradPlan<T, T>,
    pub stream: Stream,
}

impl<T: Element> Products<T> {
    pub fn new(
        device: &Device,
        (rows, inputs, outputs): (usize, usize, usize),
        activation: Activation,
    ) -> Result<Self> {
        let forward = Gemm::new(rows, outputs, inputs).layout(Layout::NT).activation(activation);
        let data_grad = DataGrad::new(rows, inputs, outputs).activation(activation);
        let weight_grad = WeightGrad::new(rows, inputs, outputs).activation(activation);
        Ok(Self {
            forward: forward.plan(device)?,
            data_grad: data_grad.plan(device)?,
            weight_grad: weight_grad.plan(device)?,
            stream: device.stream()?,
        })
    }
}

//! The same in candle's own operations, to compare with.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use halfstep::gemm::Activation;

/// What [`Linear`](crate::Linear) computes.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    activate(&x.broadcast_matmul(&weight.t()?)?.broadcast_add(bias)?, activation)
}

/// The activation alone.
pub fn activate(z: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::None => Ok(z.clone()),
        Activation::Relu => z.relu(),
        Activation::GeluTanh => z.gelu(),
        Activation::GeluErf => z.gelu_erf(),
        Activation::Silu => z.silu(),
    }
}

/// AdamW, as halfstep has it.
pub struct AdamW {
    rule: halfstep::optim::AdamW,
    step: i32,
    /// Variables with their two moments.
    vars: Vec<(Var, Tensor, Tensor)>,
}

impl AdamW {
    /// An optimizer of `vars`.
    pub fn new(vars: &[Var], rule: halfstep::optim::AdamW) -> Result<Self> {
        let state = |var: &Var| Ok((var.clone(), var.zeros_like()?, var.zeros_like()?));
        Ok(Self { rule, step: 0, vars: vars.iter().map(state).collect::<Result<_>>()? })
    }

    /// One step of every variable that has a gradient.
    pub fn step(&mut self, grads: &GradStore) -> Result<()> {
        let halfstep::optim::AdamW { lr, beta1, beta2, eps, weight_decay, .. } = self.rule;
        self.step += 1;
        let (first, second) = (1.0 - beta1.powi(self.step), 1.0 - beta2.powi(self.step));
        for (var, m, v) in &mut self.vars {
            let Some(grad) = grads.get(var) else { continue };
            *m = ((&*m * beta1)? + (grad * (1.0 - beta1))?)?.detach();
            *v = ((&*v * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?.detach();
            let update = ((&*m / first)? / ((&*v / second)?.sqrt()? + eps)?)?;
            var.set(&((var.as_tensor() * (1.0 - lr * weight_decay))? - (update * lr)?)?)?;
        }
        Ok(())
    }
}

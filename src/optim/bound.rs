//! How far a step's f32 arithmetic can be from exact arithmetic: not a tuned tolerance, but the
//! errors of each operation carried along.
//!
//! A [`Trajectory`] runs a rule in f64 from the same start with the same gradients, and encloses
//! every value: each f32 operation adds half an ulp, a product or quotient passes on what its
//! operands have gathered, a root halves relative errors (and near 0 takes the root of the absolute
//! one). What it shows for each rule, in units of u = 2⁻²⁴ and to first order:
//!
//! | rule | m or b | v or h | p, one step from exact state | growth |
//! |---|---|---|---|---|
//! | AdamW, Adam, LAMB | 3u·(β₁\|m\| + (1−β₁)\|g\|) | 4u·v | ½ulp(p) + ~9u·\|Δp\| | m, v: bounded, a geometric sum; p: linear |
//! | SGD | 3u·(μ\|b\| + \|g\|) | | ½ulp(p) + ~3u·\|Δp\| | b: bounded; p: linear |
//! | Adagrad | | 2u·h | 1ulp(p) + ~7u·\|Δp\| | h, p: linear |
//! | Lion | 3u·(β₂\|m\| + (1−β₂)\|g\|) | | ½ulp(p) + ~3u·\|Δp\|, where the sign is certain | p: linear |
//!
//! Where the sign of Lion's c is within its own error the enclosure is 2·lr wide: either sign is
//! right. It holds for f32 moments and f32 values that steps add to (masters, or f32 parameters).
#![forbid(unsafe_code)]

use super::{Adagrad, Adam, AdamW, Lamb, Lion, Rule, Sgd};
use crate::Dtype;

/// Half an ulp of f32, with room for the f64 arithmetic of the enclosure itself.
const U: f64 = (1.0 + 1.0 / 1_048_576.0) / 16_777_216.0;
/// Half of f32's smallest subnormal.
const TINY: f64 = 7.006_492_321_624_085e-46;

/// The exact value, and how far from it the computed one may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enclosure {
    /// The value in exact arithmetic (f64).
    pub value: f64,
    /// The largest absolute difference.
    pub error: f64,
}

impl Enclosure {
    /// |found − value| / error: at most 1 if the arithmetic is right. Infinite for a NaN, and for
    /// any difference where none is allowed.
    pub fn ratio(&self, found: f64) -> f64 {
        let difference = (found - self.value).abs();
        if difference == 0.0 {
            0.0
        } else if difference.is_nan() {
            f64::INFINITY
        } else {
            difference / self.error
        }
    }

    /// The enclosure after rounding to nearest in another storage type.
    pub fn stored(self, dtype: Dtype) -> Self {
        let tiny = match dtype {
            Dtype::F16 => 2f64.powi(-25),
            Dtype::Bf16 => 2f64.powi(-134),
            Dtype::F32 => TINY,
        };
        let unit = dtype.unit_roundoff() / (1.0 - dtype.unit_roundoff());
        self.widened(unit * (self.value.abs() + self.error) + tiny)
    }

    const fn exact(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// A constant that is made in f64 and rounded once.
    fn constant(value: f64) -> Self {
        Self::exact(value).rounded()
    }

    fn widened(self, by: f64) -> Self {
        Self { error: self.error + by, ..self }
    }

    /// One f32 rounding; an exact 0 stays one.
    fn rounded(self) -> Self {
        if self.value == 0.0 && self.error == 0.0 {
            return self;
        }
        self.widened(U * (self.value.abs() + self.error) + TINY)
    }

    fn times(self, by: Self) -> Self {
        // 0 times an unknown is 0.
        let part = |of: f64, error: f64| if of == 0.0 { 0.0 } else { of.abs() * error };
        let error =
            part(self.value, by.error) + part(by.value, self.error) + part(self.error, by.error);
        Self { value: self.value * by.value, error }
    }

    fn plus(self, to: Self) -> Self {
        Self { value: self.value + to.value, error: self.error + to.error }
    }

    fn negated(self) -> Self {
        Self { value: -self.value, ..self }
    }

    /// f32's product.
    fn mul(self, by: Self) -> Self {
        self.times(by).rounded()
    }

    /// f32's `self·by + to`.
    fn fma(self, by: Self, to: Self) -> Self {
        self.times(by).plus(to).rounded()
    }

    /// f32's difference.
    fn sub(self, what: Self) -> Self {
        self.plus(what.negated()).rounded()
    }

    /// f32's quotient; the divisor is positive.
    fn div(self, by: Self) -> Self {
        let value = self.value / by.value;
        let least = by.value - by.error;
        let error =
            if least > 0.0 { (self.error + value.abs() * by.error) / least } else { f64::INFINITY };
        Self { value, error }.rounded()
    }

    /// f32's root; what is below 0 by error only is not there.
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        let above = (self.value + self.error).sqrt() - value;
        let below = value - (self.value - self.error).max(0.0).sqrt();
        Self { value, error: above.max(below) }.rounded()
    }

    fn max(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), error: self.error.max(other.error) }
    }

    fn sign(self) -> Self {
        let value = if self.value == 0.0 { 0.0 } else { self.value.signum() };
        let certain = self.error == 0.0 || self.value.abs() > self.error;
        Self { value, error: if certain { 0.0 } else { 1.0 + value.abs() } }
    }
}

/// One tensor on its way through steps, in exact arithmetic.
///
/// ```
/// use halfstep::optim::{Sgd, bound::Trajectory};
/// let mut way = Trajectory::new(Sgd { lr: 0.5, ..Sgd::default() }, &[1.0]);
/// way.step(&[2.0 * 1024.0], 1.0 / 1024.0); // gradients carry a loss scale of 1024
/// assert_eq!(way.params()[0].value, 0.0);
/// assert!(way.params()[0].ratio(1e-8) < 1.0 && way.params()[0].ratio(1e-5) > 1.0);
/// ```
#[derive(Debug, Clone)]
pub struct Trajectory {
    rule: Rule,
    step: i32,
    params: Vec<Enclosure>,
    slots: [Vec<Enclosure>; 3],
}

type E = Enclosure;

impl Trajectory {
    /// Before the first step, from values that the optimizer holds exactly. Factors of the tensor
    /// are for the caller to multiply into the rule's learning rate and decay.
    pub fn new(rule: impl Into<Rule>, params: &[f64]) -> Self {
        let rule = rule.into();
        let params: Vec<E> = params.iter().map(|&value| E::exact(value)).collect();
        let state = vec![E::constant(rule.initial_state()); params.len()];
        let state = || {
            if rule.initial_state() == 0.0 {
                vec![E::exact(0.0); params.len()]
            } else {
                state.clone()
            }
        };
        Self { rule, step: 0, slots: [state(), state(), state()], params }
    }

    /// One applied step. `gradients` are exact, as they are in memory; `factor` is what the step
    /// multiplies them by, clip/scale.
    pub fn step(&mut self, gradients: &[f64], factor: f64) {
        self.step += 1;
        let factor = if factor == 1.0 { E::exact(1.0) } else { E::constant(factor) };
        let gradients: Vec<E> = gradients.iter().map(|&g| E::exact(g).mul(factor)).collect();
        match self.rule {
            Rule::AdamW(rule) => self.adamw(&rule, &gradients),
            Rule::Adam(rule) => self.adam(&rule, &gradients),
            Rule::Sgd(rule) => self.sgd(&rule, &gradients),
            Rule::Adagrad(rule) => self.adagrad(&rule, &gradients),
            Rule::Lamb(rule) => self.lamb(&rule, &gradients),
            Rule::Lion(rule) => self.lion(&rule, &gradients),
        }
    }

    /// What the parameters (their masters) may be.
    pub fn params(&self) -> &[Enclosure] {
        &self.params
    }

    /// What a state array may hold; numbers as in [`Rule::slots`].
    pub fn slot(&self, slot: usize) -> &[Enclosure] {
        &self.slots[slot]
    }

    /// Powers of β as exact arithmetic has them, and what depends on them: (1/(1−β₁ᵗ), 1/√(1−β₂ᵗ)).
    fn corrections(&self, beta1: f64, beta2: f64) -> (f64, f64) {
        let left = |beta: f64| 1.0 - beta.powi(self.step);
        (1.0 / left(beta1), 1.0 / left(beta2).sqrt())
    }

    /// Both moments of element `i`.
    fn moments(&mut self, i: usize, g: E, beta1: f64, beta2: f64) -> (E, E) {
        let [m, v, _] = &mut self.slots;
        let (c1, c2) = (E::constant(1.0 - beta1), E::constant(1.0 - beta2));
        m[i] = E::constant(beta1).fma(m[i], c1.mul(g));
        v[i] = E::constant(beta2).fma(v[i], c2.mul(g).times(g).rounded());
        (m[i], v[i])
    }

    fn largest(&mut self, i: usize, amsgrad: bool, v: E) -> E {
        if !amsgrad {
            return v;
        }
        let largest = &mut self.slots[2][i];
        *largest = largest.max(v);
        *largest
    }

    fn adamw(&mut self, rule: &AdamW, gradients: &[E]) {
        let (by, s) = self.corrections(rule.beta1, rule.beta2);
        let (a, s) = (E::constant(rule.lr * by), E::constant(s));
        let w = E::constant(rule.lr * rule.weight_decay);
        for (i, &g) in gradients.iter().enumerate() {
            let (m, v) = self.moments(i, g, rule.beta1, rule.beta2);
            let v = self.largest(i, rule.amsgrad, v);
            let ratio = m.div(v.sqrt().fma(s, E::constant(rule.eps)));
            let p = self.params[i];
            self.params[i] = p.sub(w.fma(p, a.mul(ratio)));
        }
    }

    fn adam(&mut self, rule: &Adam, gradients: &[E]) {
        let (by, s) = self.corrections(rule.beta1, rule.beta2);
        let (a, s) = (E::constant(rule.lr * by), E::constant(s));
        let w = E::constant(rule.weight_decay);
        for (i, &g) in gradients.iter().enumerate() {
            let p = self.params[i];
            let (m, v) = self.moments(i, w.fma(p, g), rule.beta1, rule.beta2);
            let v = self.largest(i, rule.amsgrad, v);
            let ratio = m.div(v.sqrt().fma(s, E::constant(rule.eps)));
            self.params[i] = p.sub(a.mul(ratio));
        }
    }

    fn sgd(&mut self, rule: &Sgd, gradients: &[E]) {
        let (w, mu) = (E::constant(rule.weight_decay), E::constant(rule.momentum));
        let c = E::constant(1.0 - rule.dampening);
        for (i, &g) in gradients.iter().enumerate() {
            let p = self.params[i];
            let g = w.fma(p, g);
            let mut d = g;
            if rule.momentum != 0.0 {
                let b = &mut self.slots[0][i];
                *b = if self.step == 1 { g.rounded() } else { mu.fma(*b, c.mul(g)) };
                d = if rule.nesterov { mu.fma(*b, g) } else { *b };
            }
            self.params[i] = E::constant(-rule.lr).fma(d, p);
        }
    }

    fn adagrad(&mut self, rule: &Adagrad, gradients: &[E]) {
        let a = E::constant(rule.lr / (1.0 + f64::from(self.step - 1) * rule.lr_decay));
        let w = E::constant(rule.weight_decay);
        for (i, &g) in gradients.iter().enumerate() {
            let p = self.params[i];
            let g = w.fma(p, g);
            let h = &mut self.slots[0][i];
            *h = g.fma(g, *h);
            let below = h.sqrt().plus(E::constant(rule.eps)).rounded();
            self.params[i] = p.sub(a.mul(g.div(below)));
        }
    }

    fn lion(&mut self, rule: &Lion, gradients: &[E]) {
        let (b1, b2) = (E::constant(rule.beta1), E::constant(rule.beta2));
        let (c1, c2) = (E::constant(1.0 - rule.beta1), E::constant(1.0 - rule.beta2));
        let (a, w) = (E::constant(rule.lr), E::constant(rule.lr * rule.weight_decay));
        for (i, &g) in gradients.iter().enumerate() {
            let m = &mut self.slots[0][i];
            let c = b1.fma(*m, c1.mul(g));
            *m = b2.fma(*m, c2.mul(g));
            let p = self.params[i];
            self.params[i] = p.sub(w.fma(p, a.times(c.sign())));
        }
    }

    fn lamb(&mut self, rule: &Lamb, gradients: &[E]) {
        let (n, s) = self.corrections(rule.beta1, rule.beta2);
        let (n, s, w) = (E::constant(n), E::constant(s), E::constant(rule.weight_decay));
        let mut directions = Vec::with_capacity(gradients.len());
        for (i, &g) in gradients.iter().enumerate() {
            let (m, v) = self.moments(i, g, rule.beta1, rule.beta2);
            let ratio = m.mul(n).div(v.sqrt().fma(s, E::constant(rule.eps)));
            directions.push(w.fma(self.params[i], ratio));
        }
        let ratio = trust(norm(&self.params), norm(&directions));
        // The rate is rounded before and after the ratio comes in.
        let a = E::constant(rule.lr).times(ratio).rounded();
        for (p, u) in self.params.iter_mut().zip(directions) {
            *p = a.negated().fma(u, *p);
        }
    }
}

/// ‖x‖: the norm of the errors is the largest error of the norm (and f64's own, far below).
fn norm(values: &[E]) -> E {
    let of = |get: fn(&E) -> f64| values.iter().map(|e| get(e) * get(e)).sum::<f64>().sqrt();
    let value = of(|e| e.value);
    E { value, error: of(|e| e.error) + 1e-12 * value }
}

fn trust(of_p: E, of_u: E) -> E {
    if (of_p.value == 0.0 && of_p.error == 0.0) || (of_u.value == 0.0 && of_u.error == 0.0) {
        return E::exact(1.0);
    }
    if of_p.value <= of_p.error || of_u.value <= of_u.error {
        return E { value: 1.0, error: f64::INFINITY }; // whether it is 0 is not known
    }
    of_p.div(of_u)
}

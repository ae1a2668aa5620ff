//! The rules in f64, as their papers and PyTorch write them: a few obvious lines each, nothing
//! shared with the crate.

use halfstep::optim::Rule;

/// State of one tensor in f64.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub rule: Rule,
    pub step: i32,
    pub p: Vec<f64>,
    pub slots: Vec<Vec<f64>>,
}

impl Oracle {
    pub fn new(rule: Rule, p: Vec<f64>) -> Self {
        let initial = match rule {
            Rule::Adagrad(rule) => rule.initial_accumulator_value,
            _ => 0.0,
        };
        Self { rule, step: 0, slots: vec![vec![initial; p.len()]; 3], p }
    }

    /// One step with unscaled, clipped gradients.
    pub fn apply(&mut self, gradients: &[f64]) {
        self.step += 1;
        let t = self.step;
        let (first, rest) = self.slots.split_at_mut(1);
        let (m, v, largest) = (&mut first[0], &mut rest[0].clone(), &mut rest[1].clone());
        let mut direction = vec![0.0; self.p.len()];
        for (i, &g) in gradients.iter().enumerate() {
            let p = &mut self.p[i];
            match self.rule {
                Rule::AdamW(r) => {
                    m[i] = r.beta1 * m[i] + (1.0 - r.beta1) * g;
                    v[i] = r.beta2 * v[i] + (1.0 - r.beta2) * g * g;
                    largest[i] = largest[i].max(v[i]);
                    let v = if r.amsgrad { largest[i] } else { v[i] };
                    let m_hat = m[i] / (1.0 - r.beta1.powi(t));
                    let v_hat = v / (1.0 - r.beta2.powi(t));
                    *p -= r.lr * (m_hat / (v_hat.sqrt() + r.eps) + r.weight_decay * *p);
                }
                Rule::Adam(r) => {
                    let g = g + r.weight_decay * *p;
                    m[i] = r.beta1 * m[i] + (1.0 - r.beta1) * g;
                    v[i] = r.beta2 * v[i] + (1.0 - r.beta2) * g * g;
                    largest[i] = largest[i].max(v[i]);
                    let v = if r.amsgrad { largest[i] } else { v[i] };
                    let m_hat = m[i] / (1.0 - r.beta1.powi(t));
                    let v_hat = v / (1.0 - r.beta2.powi(t));
                    *p -= r.lr * m_hat / (v_hat.sqrt() + r.eps);
                }
                Rule::Sgd(r) => {
                    let mut g = g + r.weight_decay * *p;
                    if r.momentum != 0.0 {
                        m[i] = if t == 1 { g } else { r.momentum * m[i] + (1.0 - r.dampening) * g };
                        g = if r.nesterov { g + r.momentum * m[i] } else { m[i] };
                    }
                    *p -= r.lr * g;
                }
                Rule::Adagrad(r) => {
                    let g = g + r.weight_decay * *p;
                    m[i] += g * g;
                    let lr = r.lr / (1.0 + f64::from(t - 1) * r.lr_decay);
                    *p -= lr * g / (m[i].sqrt() + r.eps);
                }
                Rule::Lion(r) => {
                    let c = r.beta1 * m[i] + (1.0 - r.beta1) * g;
                    let sign = if c == 0.0 { 0.0 } else { c.signum() };
                    *p -= r.lr * (sign + r.weight_decay * *p);
                    m[i] = r.beta2 * m[i] + (1.0 - r.beta2) * g;
                }
                Rule::Lamb(r) => {
                    m[i] = r.beta1 * m[i] + (1.0 - r.beta1) * g;
                    v[i] = r.beta2 * v[i] + (1.0 - r.beta2) * g * g;
                    let m_hat = m[i] / (1.0 - r.beta1.powi(t));
                    let v_hat = v[i] / (1.0 - r.beta2.powi(t));
                    direction[i] = m_hat / (v_hat.sqrt() + r.eps) + r.weight_decay * *p;
                }
                _ => unreachable!("a rule the oracle does not know"),
            }
        }
        if let Rule::Lamb(r) = self.rule {
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (of_p, of_u) = (norm(&self.p), norm(&direction));
            let ratio = if of_p > 0.0 && of_u > 0.0 { of_p / of_u } else { 1.0 };
            for (p, u) in self.p.iter_mut().zip(&direction) {
                *p -= r.lr * ratio * u;
            }
        }
        rest[0].clone_from(v);
        rest[1].clone_from(largest);
    }
}

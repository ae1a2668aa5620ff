//! Softmax and cross-entropy: the loss, and its gradient with respect to the logits.

use crate::data::CLASSES;

/// Returns the sum over rows of `-ln softmax(logits)[label]`, and replaces the logits by
/// `factor · (softmax(logits) - onehot(label))`.
///
/// `logits` is `[rows, CLASSES]`.
pub fn softmax_cross_entropy(logits: &mut [f32], labels: &[usize], factor: f32) -> f32 {
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_exact_mut(CLASSES).zip(labels) {
        let max = row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
        let sum: f32 = row.iter().map(|x| (x - max).exp()).sum();
        loss += sum.ln() - (row[label] - max);
        for (class, x) in row.iter_mut().enumerate() {
            let probability = (*x - max).exp() / sum;
            *x = factor * (probability - f32::from(class == label));
        }
    }
    loss
}

/// How many rows have their largest logit at their label.
pub fn correct(logits: &[f32], labels: &[usize]) -> usize {
    let right = |(row, &label): (&[f32], &usize)| row.iter().all(|&x| x <= row[label]);
    logits.chunks_exact(CLASSES).zip(labels).filter(|&pair| right(pair)).count()
}

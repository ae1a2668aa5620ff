//! What travels behind each block of a bucket: enough to notice ranks in different steps, to weigh
//! an average, to agree on unused parameters, and to name the rank that made a NaN.

#![forbid(unsafe_code)]

/// Bytes before the bitmap.
const HEADER: usize = 32;
/// Trailers are padded to this many bytes.
const ALIGN: usize = 64;

/// One rank's word on one bucket of one step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trailer {
    /// Steps finished before this one.
    pub step: u64,
    /// The plan's hash.
    pub plan: u64,
    /// The rank's weight in the average.
    pub weight: f64,
    /// Elements that were NaN or ±Inf when this rank packed them.
    pub non_finite: u64,
    /// For each parameter of the bucket, whether this rank has a gradient for it.
    pub used: Vec<bool>,
}

impl Trailer {
    /// Bytes of the trailer of a bucket with so many parameters.
    pub fn bytes(params: usize) -> usize {
        (HEADER + params.div_ceil(8)).next_multiple_of(ALIGN)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::bytes(self.used.len()));
        for word in [self.step, self.plan, self.weight.to_bits(), self.non_finite] {
            bytes.extend(word.to_le_bytes());
        }
        for byte in self.used.chunks(8) {
            bytes.push(
                byte.iter().enumerate().fold(0, |bits, (i, &used)| bits | u8::from(used) << i),
            );
        }
        bytes.resize(Self::bytes(self.used.len()), 0);
        bytes
    }

    /// # Panics
    /// If `bytes` is shorter than [`Trailer::bytes`]: the caller cut it to that.
    pub fn decode(bytes: &[u8], params: usize) -> Self {
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| bytes[8 * i + b]));
        Self {
            step: word(0),
            plan: word(1),
            weight: f64::from_bits(word(2)),
            non_finite: word(3),
            used: (0..params).map(|i| bytes[HEADER + i / 8] >> (i % 8) & 1 == 1).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for params in [0, 1, 7, 8, 9, 300] {
            let used = (0..params).map(|i| i % 3 == 0).collect();
            let trailer = Trailer { step: 7, plan: u64::MAX, weight: 0.5, non_finite: 3, used };
            let bytes = trailer.encode();
            assert_eq!(bytes.len(), Trailer::bytes(params));
            assert_eq!(Trailer::decode(&bytes, params), trailer);
        }
    }
}

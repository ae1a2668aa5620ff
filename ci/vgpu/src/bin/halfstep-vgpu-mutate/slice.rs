//! Which instructions compute addresses.

/// What an instruction does with registers, whatever they are called.
#[derive(Debug, Default)]
pub struct Flow {
    pub writes: Vec<String>,
    pub reads: Vec<String>,
    /// Those that it takes for addresses.
    pub addresses: Vec<String>,
    /// It computes what it writes from what it reads, in integers.
    pub arithmetic: bool,
}

/// Of each instruction, whether its result becomes a part of an address a few instructions later.
/// Registers are followed upwards in the order of the text, which is what registers that are used
/// again and again allow.
pub fn addresses(code: &[Flow]) -> Vec<bool> {
    const FAR: usize = 60;
    let mut found = vec![false; code.len()];
    for (i, flow) in code.iter().enumerate() {
        let mut wanted = flow.addresses.clone();
        for j in (i.saturating_sub(FAR)..i).rev() {
            if wanted.is_empty() {
                break;
            }
            let earlier = &code[j];
            if !earlier.writes.iter().any(|r| wanted.contains(r)) {
                continue;
            }
            wanted.retain(|r| !earlier.writes.contains(r));
            if earlier.arithmetic {
                found[j] = true;
                wanted.extend(earlier.reads.iter().cloned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(writes: &str, reads: &[&str], addresses: &[&str], arithmetic: bool) -> Flow {
        let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        Flow { writes: list(&[writes]), reads: list(reads), addresses: list(addresses), arithmetic }
    }

    #[test]
    fn what_leads_to_an_address_is_followed() {
        let code = [
            flow("a", &["t"], &[], true),
            flow("x", &["t"], &[], true),
            flow("b", &["a"], &[], true),
            flow("c", &[], &["b"], false),
            flow("d", &["c"], &[], true),
        ];
        assert_eq!(addresses(&code), [true, false, true, false, false]);
    }
}

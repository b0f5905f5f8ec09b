//! Amounts as Kubernetes writes them.

/// An amount in thousandths, rounded up; none where it is no amount, or larger than anything that is meant.
///
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub(crate) fn milli(text: &str) -> Option<i64> {
    let end = text.find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: f64 = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        exponent => {
            10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| (-18..=18).contains(power))?)
        }
    };
    // What is just above a whole number is the number, but for rounding in binary.
    let value = (number.parse::<f64>().ok()? * factor * 1000.0 - 1e-6).ceil();
    #[expect(clippy::cast_possible_truncation, reason = "bounded before")]
    (value.is_finite() && value.abs() < 9e18).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("100m", Some(100)),
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("128974848", Some(128_974_848_000)),
            ("129e6", Some(129_000_000_000)),
            ("123Mi", Some(128_974_848_000)),
            ("1n", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("x", None),
            ("1e400", None),
            ("9E", None),
            ("1 Gi", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }
}

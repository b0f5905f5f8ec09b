//! The `kubeVersion` of charts: constraints as Helm's library reads them.
//!
//! <https://github.com/Masterminds/semver#checking-version-constraints>: alternatives with `||`, all of a list with
//! commas or spaces, `=`, `!=`, `<`, `<=`, `>`, `>=`, `~`, `^`, `x` for any number, ranges with ` - `. What it does not
//! know it does not judge.

/// Whether some patch of a minor satisfies a constraint; none where the constraint cannot be read.
pub fn admits(constraint: &str, minor: u32) -> Option<bool> {
    let patches = [0, 1, 9, 99];
    let mut admitted = false;
    for alternative in constraint.split("||") {
        let parts = comparisons(alternative)?;
        admitted |= patches.iter().any(|patch| parts.iter().all(|part| part.holds([1, minor, *patch])));
    }
    Some(admitted)
}

struct Comparison {
    operator: &'static str,
    /// Major, minor, patch; none for any.
    parts: [Option<u32>; 3],
}

fn comparisons(text: &str) -> Option<Vec<Comparison>> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if let Some((from, to)) = text.split_once(" - ") {
        return Some(vec![comparison(&format!(">={from}"))?, comparison(&format!("<={to}"))?]);
    }
    // `>= 1.19` is one comparison: an operator belongs to the word after it.
    let mut words = Vec::new();
    let mut operator = String::new();
    for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
        let whole = format!("{operator}{word}");
        if word.chars().all(|character| "<>=!~^".contains(character)) {
            operator = whole;
        } else {
            operator.clear();
            words.push(whole);
        }
    }
    if !operator.is_empty() || words.is_empty() {
        return None;
    }
    words.iter().map(|word| comparison(word)).collect()
}

const OPERATORS: [&str; 11] = ["!=", ">=", "=>", "<=", "=<", "~>", "=", ">", "<", "~", "^"];

fn comparison(text: &str) -> Option<Comparison> {
    let operator = OPERATORS.into_iter().find(|operator| text.starts_with(operator)).unwrap_or("");
    let version = text[operator.len()..].trim().trim_start_matches('v');
    // Pre-releases and builds only say that such versions count too.
    let version = version.split(['-', '+']).next()?;
    let mut parts = [None; 3];
    let mut given = version.split('.');
    for place in &mut parts {
        match given.next() {
            None | Some("x" | "X" | "*") => {}
            Some(number) => *place = Some(number.parse().ok()?),
        }
    }
    (given.next().is_none() && !version.is_empty()).then_some(Comparison { operator, parts })
}

impl Comparison {
    fn holds(&self, version: [u32; 3]) -> bool {
        let low = self.parts.map(|part| part.unwrap_or(0));
        let matches = self.parts.iter().zip(version).all(|(part, number)| part.is_none_or(|wanted| wanted == number));
        let given = self.parts.iter().take_while(|part| part.is_some()).count();
        match self.operator {
            "" | "=" => matches,
            "!=" => !matches,
            ">" => version > low && !(given < 3 && matches),
            ">=" | "=>" => version >= low,
            "<" => version < low,
            "<=" | "=<" => version <= low || (given < 3 && matches),
            // Up to the next minor, or the next major where only that is given.
            "~" | "~>" => version >= low && version[0] == low[0] && (given < 2 || version[1] == low[1]),
            // Up to the next change of the first number that is not zero.
            _ => version >= low && version[0] == low[0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::admits;

    #[test]
    fn constraints_mean_what_helm_says() {
        for (constraint, minor, expected) in [
            (">=1.19.0-0", 37, Some(true)),
            (">= 1.19.0-0 < 1.30.0-0", 29, Some(true)),
            (">= 1.19.0-0 < 1.30.0-0", 30, Some(false)),
            (">=1.19, <1.37", 37, Some(false)),
            ("^1.20", 37, Some(true)),
            ("~1.36", 37, Some(false)),
            ("~1.36", 36, Some(true)),
            ("1.x", 37, Some(true)),
            ("*", 37, Some(true)),
            ("1.36", 37, Some(false)),
            ("1.30 - 1.36", 37, Some(false)),
            ("1.30 - 1.36", 36, Some(true)),
            ("<1.20 || >=1.37", 37, Some(true)),
            ("<=1.36", 36, Some(true)),
            (">1.36", 36, Some(false)),
            ("!=1.37.x", 37, Some(false)),
            ("> v1.22.0", 37, Some(true)),
            ("", 37, None),
            ("latest", 37, None),
            (">=", 37, None),
            ("1.2.3.4", 37, None),
        ] {
            assert_eq!(admits(constraint, minor), expected, "{constraint} at 1.{minor}");
        }
    }
}

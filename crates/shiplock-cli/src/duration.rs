//! Durations as people write them: `90s`, `30m`, `2h`, `7d`, `1h30m`.

use crate::arguments::WrongValue;

/// The seconds of a duration.
pub(crate) fn parse_seconds(text: &str) -> Result<u32, WrongValue> {
    let wrong = || WrongValue {
        english: format!("`{text}` is not a duration; write 90s, 30m, 2h, 7d or 1h30m"),
        chinese: format!("`{text}` 不是时长；请写作 90s、30m、2h、7d 或 1h30m"),
    };
    if text == "0" {
        return Ok(0);
    }
    let mut total: u32 = 0;
    let mut smallest = u32::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
        let amount: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return Err(wrong()),
        };
        // `30m1h` or `5m5m` is more likely a mistake than a wish.
        if unit >= smallest {
            return Err(wrong());
        }
        smallest = unit;
        total = amount.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if smallest == u32::MAX { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_doubtful_ones_are_refused() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("30m", Some(1_800)),
            ("2h", Some(7_200)),
            ("7d", Some(604_800)),
            ("1h30m", Some(5_400)),
            ("1d2h3m4s", Some(93_784)),
            ("", None),
            ("30", None),
            ("m", None),
            ("30m1h", None),
            ("5m5m", None),
            ("1.5h", None),
            ("-5m", None),
            ("5 m", None),
            ("5分", None),
            ("99999999d", None),
        ] {
            assert_eq!(parse_seconds(text).ok(), seconds, "{text}");
        }
    }
}

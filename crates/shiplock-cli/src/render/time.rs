//! Times and durations for people. Durations are said with two units at most, since nobody reads a third.

use jiff::Timestamp;
use shiplock_core::estimate::Estimate;
use shiplock_core::language::Language;

use super::Style;

/// `45s`, `3m12s`, `1h04m`, `2d3h`. Negative ones count as nothing.
pub fn duration(seconds: i64, language: Language) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60, language) {
        (0, 0, 0, s, Language::En) => format!("{s}s"),
        (0, 0, 0, s, Language::Zh) => format!("{s} 秒"),
        (0, 0, m, 0, Language::En) => format!("{m}m"),
        (0, 0, m, 0, Language::Zh) => format!("{m} 分"),
        (0, 0, m, s, Language::En) => format!("{m}m{s:02}s"),
        (0, 0, m, s, Language::Zh) => format!("{m} 分 {s} 秒"),
        (0, h, 0, _, Language::En) => format!("{h}h"),
        (0, h, 0, _, Language::Zh) => format!("{h} 小时"),
        (0, h, m, _, Language::En) => format!("{h}h{m:02}m"),
        (0, h, m, _, Language::Zh) => format!("{h} 小时 {m} 分"),
        (d, 0, _, _, Language::En) => format!("{d}d"),
        (d, 0, _, _, Language::Zh) => format!("{d} 天"),
        (d, h, _, _, Language::En) => format!("{d}d{h}h"),
        (d, h, _, _, Language::Zh) => format!("{d} 天 {h} 小时"),
    }
}

/// `2m to 5m`. Bounds over a minute are told in whole minutes: more would claim to know more than it does.
pub fn range(estimate: Estimate, language: Language) -> String {
    let rounded = |milliseconds: u64, up: bool| {
        let seconds = i64::try_from(milliseconds.div_ceil(1_000)).unwrap_or(i64::MAX);
        if seconds <= 60 {
            seconds
        } else if up {
            (seconds + 59) / 60 * 60
        } else {
            seconds / 60 * 60
        }
    };
    let lower = duration(rounded(estimate.lower_milliseconds, false), language);
    let upper = duration(rounded(estimate.upper_milliseconds, true), language);
    if lower == upper {
        return upper;
    }
    language.pick("LOWER to UPPER", "LOWER 至 UPPER").replace("LOWER", &lower).replace("UPPER", &upper)
}

impl Style {
    /// How long ago something was.
    pub fn since(&self, then: Timestamp) -> String {
        duration(self.now.as_second() - then.as_second(), self.language)
    }

    /// How long it is until something.
    pub fn until(&self, then: Timestamp) -> String {
        duration(then.as_second() - self.now.as_second(), self.language)
    }

    /// `14:41:07` for the same day, with the date otherwise.
    pub fn clock(&self, at: Timestamp) -> String {
        let (zoned, now) = (at.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let form = if zoned.date() == now.date() { "%H:%M:%S" } else { "%m-%d %H:%M:%S" };
        zoned.strftime(form).to_string()
    }

    /// `2026-11-30 14:43`.
    pub fn date(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_in_both_languages() {
        for (seconds, english, chinese) in [
            (-5, "0s", "0 秒"),
            (45, "45s", "45 秒"),
            (60, "1m", "1 分"),
            (192, "3m12s", "3 分 12 秒"),
            (3_600, "1h", "1 小时"),
            (3_840, "1h04m", "1 小时 4 分"),
            (86_400, "1d", "1 天"),
            (604_799, "6d23h", "6 天 23 小时"),
        ] {
            assert_eq!(duration(seconds, Language::En), english);
            assert_eq!(duration(seconds, Language::Zh), chinese);
        }
    }

    #[test]
    fn a_clock_names_the_day_when_it_is_another_one() {
        let style = Style::plain(Language::En, "2026-11-23T14:42:00Z".parse().unwrap());
        assert_eq!(style.clock("2026-11-23T14:41:07Z".parse().unwrap()), "14:41:07");
        assert_eq!(style.clock("2026-11-22T14:41:07Z".parse().unwrap()), "11-22 14:41:07");
    }
}

//! Bars as SVG.

use std::fmt::Write;

/// One bar.
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// The least and the greatest of what it is the median of, if that is more than one.
    pub spread: Option<(f64, f64)>,
    /// Whether it is drawn in the colour that stands out.
    pub ours: bool,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 230.0;
const NUMBERS: f64 = 90.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 40.0;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A number with three digits that say something.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.split_at(usize::from(digits.starts_with('-')));
            let mut grouped = String::from(sign);
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Horizontal bars from zero, in the order given; thin lines show spreads. Readable in light and
/// dark.
pub fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let height = HEAD + ROW * bars.len() as f64 + 8.0;
    let most = bars
        .iter()
        .map(|bar| {
            bar.spread
                .map_or(bar.value, |(_, most)| most.max(bar.value))
        })
        .fold(0.0, f64::max);
    let scale = (WIDTH - LABELS - NUMBERS) / if most > 0.0 { most } else { 1.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\" fill=\"#222222\">{} <tspan font-weight=\"normal\" fill=\"#666666\">{}</tspan></text>\n",
        escaped(title),
        escaped(unit)
    );
    for (row, bar) in bars.iter().enumerate() {
        let y = HEAD + ROW * row as f64;
        let (middle, length) = (y + ROW / 2.0, bar.value * scale);
        let colour = if bar.ours { "#c4501b" } else { "#8fa3b5" };
        let end = bar
            .spread
            .map_or(length, |(_, most)| length.max(most * scale));
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#222222\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\" fill=\"#222222\">{}</text>",
            LABELS - 8.0,
            middle + 4.0,
            escaped(&bar.label),
            y + 3.0,
            ROW - 6.0,
            LABELS + end + 6.0,
            middle + 4.0,
            number(bar.value)
        );
        if let Some((least, most)) = bar.spread {
            let (from, to) = (LABELS + least * scale, LABELS + most * scale);
            let _ = writeln!(
                svg,
                "<path d=\"M{from:.1} {middle}H{to:.1}\" stroke=\"#222222\" stroke-width=\"1\"/>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 1.234, 56.78, 999.5, 12_345.6, 1_234_567.0, -1_234.0].map(number);
        assert_eq!(
            shown,
            [
                "0.00",
                "1.23",
                "56.8",
                "1,000",
                "12,346",
                "1,234,567",
                "-1,234"
            ]
        );
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_labels_are_text() {
        let bar = |label: &str, value| Bar {
            label: label.into(),
            value,
            spread: None,
            ours: false,
        };
        let svg = bars("a < b", "ms", &[bar("x & y", 10.0), bar("z", 5.0)]);
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y"));
        assert!(
            svg.contains("width=\"440.0\"") && svg.contains("width=\"220.0\""),
            "{svg}"
        );
        // Nothing to show is no division by zero.
        assert!(!bars("", "", &[bar("none", 0.0)]).contains("NaN"));
    }
}

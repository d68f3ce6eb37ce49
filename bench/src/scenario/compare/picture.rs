//! The tables as a picture: bars for the first two figures of each load, as SVG that any browser and
//! any page of Markdown shows.

use std::fmt::Write as _;

use super::program::Program;
use super::table::Table;
use crate::report::number;

const WIDTH: usize = 800;
/// Where the bars of the first and of the second figure begin.
const PANELS: [usize; 2] = [240, 530];
/// The longest bar; its value stands behind it.
const BAR_WIDTH: f64 = 180.0;
const ROW_HEIGHT: usize = 22;
/// A title, the names of the figures, and the space below the rows.
const AROUND_HEIGHT: usize = 76;

/// The whole picture.
pub(super) fn svg(tables: &[Table]) -> String {
    let heights = tables.iter().map(height);
    let all: usize = heights.sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{all}\" \
         viewBox=\"0 0 {WIDTH} {all}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{all}\" fill=\"#fff\"/>\n"
    );
    let mut top = 0;
    for table in tables {
        panel(&mut svg, table, top);
        top += height(table);
    }
    svg.push_str("</svg>\n");
    svg
}

fn height(table: &Table) -> usize {
    AROUND_HEIGHT + ROW_HEIGHT * table.servers().count()
}

fn panel(svg: &mut String, table: &Table, top: usize) {
    let title = escape(table.title());
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{}\" font-size=\"15\" font-weight=\"bold\">{title}</text>",
        top + 28
    );
    let first = top + 56;
    for (row, (name, _)) in table.servers().enumerate() {
        let y = first + ROW_HEIGHT * row + 15;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{y}\">{}</text>", escape(name));
    }
    for (at, (column, left)) in table.columns().iter().zip(PANELS).enumerate() {
        let heading = escape(&format!("{}, {}", column.name, column.unit));
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" fill=\"#666\">{heading}</text>",
            top + 50
        );
        let medians: Vec<_> = table.medians(at).collect();
        let most = medians.iter().flatten().copied().fold(0.0, f64::max);
        for (row, ((_, program), median)) in table.servers().zip(&medians).enumerate() {
            let Some(value) = median else { continue };
            let y = first + ROW_HEIGHT * row;
            let width = if most > 0.0 {
                BAR_WIDTH * value / most
            } else {
                0.0
            };
            let color = color(program);
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                left as f64 + width + 6.0,
                y + 14,
                number(*value)
            );
        }
    }
}

/// The yardsticks, the gateway, everybody else.
fn color(program: Program) -> &'static str {
    match program {
        Program::Limit => "#b0b0b0",
        Program::Iris => "#2a6fbb",
        Program::Nats | Program::Mosquitto | Program::Redis => "#d9a04a",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::compare::table::tests::example;

    #[test]
    fn the_longest_bar_is_that_of_the_greatest_median_and_a_missing_figure_has_none() {
        let svg = svg(&[example(), example()]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        // Two rates and one latency, twice.
        assert_eq!(svg.matches("height=\"18\"").count(), 6);
        for bar in ["width=\"90.0\"", "width=\"180.0\""] {
            assert!(svg.contains(bar), "{svg}");
        }
        assert!(svg.contains(">2,000</text>"));
    }
}

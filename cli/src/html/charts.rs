//! Charts as SVG, to stand inside a page: text and axes take the page's colour (`currentColor`), grid
//! lines are a half-transparent grey and series have middle tones, so that they can be read on white
//! and on black.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Colours of the sides, in order; further sides begin again.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0x80, 0x87, 0x92),
    RGBColor(0xe0, 0x7b, 0x16),
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0x1f, 0x9d, 0x55),
    RGBColor(0xa8, 0x55, 0xd6),
    RGBColor(0xd6, 0x3c, 0x5e),
];

const SIZE: (u32, u32) = (640, 360);
const FONT: (&str, u32) = ("sans-serif", 13);
const GRID: RGBAColor = RGBAColor(0x80, 0x80, 0x80, 0.25);

/// Height of a bar with its gap, and the widths to the left and right of the bars.
const BAR: i32 = 16;
const NAMES: i32 = 185;
const VALUES: i32 = 90;
/// The latter where a value is followed by its side's name.
const NAMED_VALUES: i32 = 190;

/// A line of a chart: which side's, and its points.
pub struct Line {
    pub side: usize,
    pub points: Vec<(f64, f64)>,
}

/// Bars with one name: which side's, and how long.
pub struct Bars {
    pub name: String,
    pub values: Vec<(usize, f64)>,
}

/// The colour of a side, as CSS has it.
pub fn color(side: usize) -> String {
    let RGBColor(red, green, blue) = PALETTE[side % PALETTE.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Times in nanoseconds (logarithmic, within `range`) over nines.
pub fn latency(lines: &[Line], range: (f64, f64)) -> Result<String> {
    let ends = lines.iter().filter_map(|line| line.points.last());
    let nines = ends.map(|point| point.0).fold(1.0, f64::max).ceil();
    let y = (range.0..range.1).log_scale();
    lines_chart(
        lines,
        0.0..nines,
        y,
        &|nines| percentile(*nines),
        &|nanos| duration(*nanos),
    )
}

/// Bytes over milliseconds.
pub fn memory(lines: &[Line]) -> Result<String> {
    let points = lines.iter().flat_map(|line| &line.points);
    let (width, height) = points.fold((1.0f64, 1.0f64), |(x, y), point| {
        (x.max(point.0), y.max(point.1))
    });
    let mebibytes = |bytes: &f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    lines_chart(
        lines,
        0.0..width,
        0.0..height * 1.05,
        &|millis| format!("{millis:.0} ms"),
        &mebibytes,
    )
}

fn lines_chart<X, Y>(
    lines: &[Line],
    x: X,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    draw(SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(32)
            .x_label_area_size(28)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT)
            .x_label_formatter(x_label)
            .y_label_formatter(y_label)
            .draw()?;
        for line in lines {
            let style = PALETTE[line.side % PALETTE.len()].stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        }
        Ok(())
    })
}

/// Bars from the left, one a side, under the name of their group. `logarithmic` draws the length of
/// one more than the value, so that nothing has length 0.
pub fn bars(groups: &[Bars], logarithmic: bool, label: &dyn Fn(f64) -> String) -> Result<String> {
    let scale = |value: f64| if logarithmic { value.ln_1p() } else { value };
    bars_chart(groups, VALUES, &scale, &|_, value| label(value))
}

fn bars_chart(
    groups: &[Bars],
    beside: i32,
    scale: &dyn Fn(f64) -> f64,
    label: &dyn Fn(usize, f64) -> String,
) -> Result<String> {
    let rows: usize = groups.iter().map(|group| group.values.len()).sum();
    let height = rows as i32 * BAR + (groups.len() as i32 + 1) * BAR / 2;
    let values = groups.iter().flat_map(|group| &group.values);
    let most = values.map(|value| scale(value.1)).fold(1e-9, f64::max);
    let room = f64::from(SIZE.0 as i32 - NAMES - beside);
    draw((SIZE.0, height as u32), |area| {
        let mut top = BAR / 2;
        for group in groups {
            area.draw(&Text::new(group.name.clone(), (4, top), FONT))?;
            for &(side, value) in &group.values {
                let end = NAMES + (room * scale(value) / most) as i32;
                let corners = [(NAMES, top), (end.max(NAMES + 1), top + BAR - 4)];
                let fill = PALETTE[side % PALETTE.len()].filled();
                area.draw(&Rectangle::new(corners, fill))?;
                area.draw(&Text::new(label(side, value), (end + 6, top), FONT))?;
                top += BAR;
            }
            top += BAR / 2;
        }
        Ok(())
    })
}

/// Bars as of [`bars`], linear, with a label that may tell the side.
pub fn named_bars(groups: &[Bars], label: &dyn Fn(usize, f64) -> String) -> Result<String> {
    bars_chart(groups, NAMED_VALUES, &|value| value, label)
}

/// A chart as a file of its own, which a viewer may show on a light or a dark page.
pub fn standalone(svg: &str) -> String {
    const STYLE: &str = "<style>svg{color:#24292f;background:#fff}\
                         @media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}</style>";
    let inside = svg.find('>').map_or(0, |end| end + 1);
    format!("{}\n{STYLE}{}", &svg[..inside], &svg[inside..])
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The SVG that `paint` draws, in the page's colours.
fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&area).map_err(|error| anyhow!("cannot draw a chart: {error}"))?;
        area.present()?;
    }
    Ok(svg.replace("#000000", "currentColor"))
}

/// `p99.9` of three nines.
fn percentile(nines: f64) -> String {
    let digits = (nines.round() as usize).saturating_sub(2);
    format!("p{:.digits$}", 100.0 - 100.0 * 10f64.powf(-nines.round()))
}

/// Nanoseconds for people, to three digits.
pub fn duration(nanos: f64) -> String {
    let (value, unit) = match nanos {
        ..1e3 => (nanos, "ns"),
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = match value {
        _ if value.fract() == 0.0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_for_people() {
        assert_eq!(
            [0.0, 1.0, 2.0, 5.0].map(percentile),
            ["p0", "p90", "p99", "p99.999"]
        );
        assert_eq!(
            [80.0, 1e3, 34_560.0, 4.25e6, 2e9].map(duration),
            ["80 ns", "1 µs", "34.6 µs", "4.25 ms", "2 s"]
        );
    }
}

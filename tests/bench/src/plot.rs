//! The ratios as a picture.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::figure::{Figure, Goal};

const WIDTH: u32 = 760;
/// Height of a row, and of what stands above and below, in pixels.
const ROW: u32 = 34;
const FRAME: u32 = 90;
/// Room for the names, in pixels.
const NAMES: u32 = 240;

/// Draws a bar for each row that has a ratio, and a mark at its aim.
pub fn ratios(rows: &[Figure], file: &Path) -> Result<()> {
    let bars: Vec<_> = rows.iter().rev().filter_map(|row| Some((row, row.ratio?))).collect();
    if bars.is_empty() {
        return Ok(());
    }
    let height = FRAME + ROW * u32::try_from(bars.len())?;
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let longest = bars.iter().map(|(_, ratio)| *ratio).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("keyd in ratio to the bare part; the line is the aim", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..longest * 1.08, (0..bars.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_style(("sans-serif", 13))
        .y_label_formatter(&|at| match at {
            SegmentValue::CenterOf(n) | SegmentValue::Exact(n) => {
                bars.get(*n).map(|(row, _)| row.name.to_owned()).unwrap_or_default()
            }
            SegmentValue::Last => String::new(),
        })
        .draw()?;
    for (n, (row, ratio)) in bars.iter().enumerate() {
        let (low, high) = (SegmentValue::Exact(n), SegmentValue::Exact(n + 1));
        let mut bar = Rectangle::new([(0.0, low.clone()), (*ratio, high.clone())], BLUE.mix(0.45).filled());
        bar.set_margin(6, 6, 0, 0);
        chart.draw_series([bar])?;
        if let Goal::RatioAtLeast(goal) = row.goal {
            chart.draw_series([PathElement::new([(goal, low), (goal, high)], BLACK.stroke_width(2))])?;
        }
        let label = Text::new(format!("{ratio:.2}"), (0.02, SegmentValue::CenterOf(n)), ("sans-serif", 13));
        chart.draw_series([label])?;
    }
    area.present()?;
    Ok(())
}

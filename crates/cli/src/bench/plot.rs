//! A picture: how latencies are distributed, and the throughput over time.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::recorder::{Recorder, STEP};

const SIZE: (u32, u32) = (900, 700);

/// Draws both into an SVG file.
pub(super) fn draw(path: &Path, recorder: &Recorder) -> Result<(), Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let halves = area.split_evenly((2, 1));
        draw_latencies(&halves[0], recorder)?;
        draw_throughput(&halves[1], recorder)?;
        area.present()?;
    }
    // Written at the end and at once: a picture is there whole or not at all.
    std::fs::write(path, svg)?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_latencies(area: &Area<'_>, recorder: &Recorder) -> Result<(), Box<dyn Error>> {
    let latencies = &recorder.latencies;
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    let low = microseconds(latencies.min().max(1));
    let high = microseconds(latencies.max()).max(low * 1.01);
    let mut chart = ChartBuilder::on(area)
        .caption("share of requests answered within", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d((low..high).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("latency, microseconds")
        .y_desc("%")
        .draw()?;
    let total = latencies.len().max(1) as f64;
    let mut seen = 0;
    let points = latencies.iter_recorded().map(|value| {
        seen += value.count_since_last_iteration();
        (
            microseconds(value.value_iterated_to()),
            seen as f64 / total * 100.0,
        )
    });
    let points: Vec<(f64, f64)> = points.collect();
    chart.draw_series(LineSeries::new(points, &BLUE))?;
    Ok(())
}

fn draw_throughput(area: &Area<'_>, recorder: &Recorder) -> Result<(), Box<dyn Error>> {
    let step = STEP.as_secs_f64();
    // The last step is cut short by the end of the run, and would show as a fall.
    let whole = recorder
        .timeline
        .len()
        .saturating_sub(1)
        .max(1)
        .min(recorder.timeline.len());
    let rates = recorder.timeline[..whole]
        .iter()
        .map(|count| *count as f64 / step);
    let rates: Vec<f64> = rates.collect();
    let highest = rates.iter().copied().fold(1.0, f64::max);
    let end = (rates.len() as f64 * step).max(step);
    let mut chart = ChartBuilder::on(area)
        .caption("throughput", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..end, 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("requests/s")
        .draw()?;
    let points = rates
        .iter()
        .enumerate()
        .map(|(index, rate)| ((index as f64 + 0.5) * step, *rate));
    chart.draw_series(LineSeries::new(points, &RED))?;
    Ok(())
}

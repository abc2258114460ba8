// uPlot within Preact: made once, given new data, resized with its place, and drawn anew when light becomes dark.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

export interface Curve {
  label: string;
  /** Which of the console's colours, counted from 0. */
  colour: number;
  points?: boolean;
}

interface PlotProps {
  /** What the picture shows, for whoever doesn't see it. */
  title: string;
  curves: Curve[];
  data: uPlot.AlignedData;
  x: { label: string; time?: boolean; log?: boolean; whole?: boolean };
  y: { label: string; fromZero?: boolean };
  height?: number;
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(props: PlotProps, width: number): uPlot.Options {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  const series = props.curves.map((curve) => ({
    label: curve.label,
    stroke: colour(`--curve-${curve.colour}`),
    width: curve.points === true ? 0 : 2,
    ...(curve.points === true
      ? { paths: () => null, points: { show: true, size: 6, fill: colour(`--curve-${curve.colour}`), width: 0 } }
      : { points: { show: false } }),
  }));
  const scattered = props.curves.every((curve) => curve.points === true);
  return {
    width,
    height: props.height ?? 220,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: {
      // Some room around points, so that none lies on the border.
      x: { time: props.x.time === true, distr: props.x.log === true ? 3 : 1, log: 2, ...(scattered ? { range: (_: uPlot, low: number, high: number) => room(low, high, false) } : {}) },
      y: { range: (_, low, high) => room(low, high, props.y.fromZero === true) },
    },
    axes: [
      { ...axis, label: props.x.label, labelSize: 20, size: 36, space: 80, ...(props.x.whole === true && props.x.log !== true ? { incrs: [1, 2, 5, 10] } : {}) },
      { ...axis, label: props.y.label, labelSize: 20, size: 56 },
    ],
    series: [{}, ...series],
  };
}

/** The range of an axis around what is drawn. */
export function room(low: number | null, high: number | null, fromZero: boolean): [number, number] {
  if (low === null || high === null) return [0, 1];
  const spare = (high - low || Math.abs(high) || 1) * 0.08;
  return [fromZero ? 0 : low - spare, high + spare];
}

export function Plot(props: PlotProps): JSX.Element {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    const element = place.current;
    if (element === null) return;
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(latest.current, element.clientWidth || 400), latest.current.data, element);
    };
    draw();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    const sizes = new ResizeObserver(() => {
      plot.current?.setSize({ width: element.clientWidth || 400, height: latest.current.height ?? 220 });
    });
    sizes.observe(element);
    return () => {
      dark.removeEventListener("change", draw);
      sizes.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(props.data), [props.data]);
  return (
    <figure class="plot">
      <figcaption>
        {props.title}
        {props.curves.length > 1 && (
          <span class="legend">
            {props.curves.map((curve) => (
              <span key={curve.label} class={`key curve-${curve.colour}`}>
                {curve.label}
              </span>
            ))}
          </span>
        )}
      </figcaption>
      <div ref={place} aria-hidden="true" />
    </figure>
  );
}

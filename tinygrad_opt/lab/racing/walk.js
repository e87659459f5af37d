// What the printed programs are written in, and the run: the JavaScript of `tinygrad_opt.lab.racing.javascript`.

const {abs, cbrt, cos, cosh, exp, expm1, log, log10, log1p, log2, sign, sin, sinh, sqrt, tan, tanh} = Math;
const maximum = Math.max, minimum = Math.min;       // they keep NaN, as NumPy's do
const square = (x) => x * x;
// The powers that are exact everywhere; a general one may differ from C's by the last digit.
const power = (x, n) => n === 1 ? x : n === 2 ? x * x : n === 0.5 ? sqrt(x) : x ** n;

/** Take steps of a rule on a surface.
 *
 * surface: from a point to its height and slope, [number, [number, ...]].
 * rule: `step`, from names to numbers, for one coordinate; `state`, what a coordinate starts from, "p" for where it is;
 *       `options`, from the number of a step, from 0, to the rule's other numbers.
 * Return points and heights (one more than there are steps), slopes, and for each step and coordinate what every name
 * of the rule was in the end. A run ends early where it leaves the numbers.
 */
function walk(surface, rule, start, steps) {
  let names = start.map((p) => Object.fromEntries(
    Object.entries(rule.state).map(([name, first]) => [name, first === "p" ? p : first])));
  const points = [start], heights = [], slopes = [], values = [];
  for (let k = 0; ; k++) {
    const [height, slope] = surface(points[k]);
    heights.push(height);
    if (k === steps || !Number.isFinite(height)) return {points, heights, slopes, values};
    const told = {...rule.options(k), t: k + 1};
    names = names.map((kept, i) => rule.step({...kept, ...told, p: points[k][i], g: slope[i]}));
    slopes.push(slope);
    values.push(names);
    points.push(names.map((name) => name.p));
  }
}

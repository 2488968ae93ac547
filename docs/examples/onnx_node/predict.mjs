// A mask for a pair of PNGs, by an ONNX file of tools/export.py:
//
//   node predict.mjs mdg.onnx photo.png heat.png mask.png
//
// Prints the share of the image that every class covers. The mask holds class ids, as `tools/infer_mm.py` writes them.
// Both images must show the same view, be of the size that the file takes, and have 8 bits; values of thermal cameras
// with more are scaled before, as `thermal_scaling` in the file's metadata says.

import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";

/** The facts that lie beside the graph: key-value pairs in field 14 of the file's protobuf. */
function metadata(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const fields = (end, see) => {
    while (at < end) {
      const tag = varint();
      if (tag % 8 === 0) varint(); // a number
      else {
        const length = varint(); // bytes
        const stop = at + length;
        see(Math.floor(tag / 8), stop);
        at = stop;
      }
    }
  };
  const facts = {};
  const text = (stop) => new TextDecoder().decode(bytes.subarray(at, stop));
  fields(bytes.length, (field, end) => {
    if (field !== 14) return;
    const entry = {};
    fields(end, (number, stop) => (entry[number] = text(stop)));
    facts[entry[1]] = entry[2];
  });
  return facts;
}

/** Channels of an image one after the other, `[1, channels, height, width]` in 0..255. */
function planes(image, channels) {
  const pixels = image.width * image.height;
  const values = new Float32Array(channels * pixels);
  for (let c = 0; c < channels; c++)
    for (let p = 0; p < pixels; p++) values[c * pixels + p] = image.data[4 * p + c]; // pngjs gives R, G, B, A
  return new ort.Tensor("float32", values, [1, channels, image.height, image.width]);
}

const [model, rgbFile, thermalFile, maskFile] = process.argv.slice(2);
if (!maskFile) {
  console.error("usage: node predict.mjs MODEL.onnx RGB.png THERMAL.png MASK.png");
  process.exit(2);
}
const bytes = readFileSync(model);
const facts = metadata(bytes);
const classes = JSON.parse(facts.classes);
const size = JSON.parse(facts.size); // null where any size goes
const multiple = JSON.parse(facts.multiple);

const rgb = PNG.sync.read(readFileSync(rgbFile));
const thermal = PNG.sync.read(readFileSync(thermalFile));
const got = `${rgb.height}x${rgb.width} and ${thermal.height}x${thermal.width}`;
const fits = size ? rgb.height === size[0] && rgb.width === size[1] : !(rgb.height % multiple || rgb.width % multiple);
if (!fits || rgb.height !== thermal.height || rgb.width !== thermal.width) {
  const wanted = size ? size.join("x") : `sides in multiples of ${multiple}`;
  console.error(`got images of ${got}, expected two of one size: ${wanted}; resize them first`);
  process.exit(2);
}

const session = await ort.InferenceSession.create(model);
const { mask } = await session.run({ rgb: planes(rgb, 3), thermal: planes(thermal, 1) });

const counts = new Array(classes.length).fill(0);
for (const id of mask.data) counts[id]++;
classes.forEach((name, id) => {
  if (counts[id]) console.log(`${name} ${((100 * counts[id]) / mask.data.length).toFixed(2)} %`);
});

const picture = { width: rgb.width, height: rgb.height, data: Buffer.from(mask.data) };
writeFileSync(maskFile, PNG.sync.write(picture, { colorType: 0, inputColorType: 0, bitDepth: 8, inputHasAlpha: false }));

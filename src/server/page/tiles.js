// Pictures as the model sees them: tiles, what each costs, where they sit in the prompt, and their patches' experts.
import {counted, element} from "./dom.js";
import {expertColour} from "./heatmap.js";

const WIDTH = 300;  // pixels of a drawn picture

function loaded(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}

/** Patches of a tile as a square, each in the colour of its expert. */
function drawPatches(paint, data, tile, layer, x, y, size) {
  const side = Math.round(Math.sqrt(tile.tokens)), step = size / side;
  for (let patch = 0; patch < tile.tokens; ++patch) {
    const experts = data.experts[tile.position + patch];
    if (!experts) continue;
    paint.fillStyle = expertColour(experts[layer][0], data.num_experts, 0.45);
    paint.fillRect(x + (patch % side) * step, y + Math.floor(patch / side) * step, step, step);
  }
}

function canvasOf(width, height, label) {
  const scale = window.devicePixelRatio || 1;
  const canvas = element("canvas", {width: width * scale, height: height * scale, role: "img", "aria-label": label});
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  const paint = canvas.getContext("2d");
  paint.scale(scale, scale);
  paint.fillStyle = "#888";
  paint.fillRect(0, 0, width, height);
  return {canvas, paint};
}

// The model sees a picture scaled into its tiles, at the upper left; the rest is empty.
function drawPicture(paint, picture, width, height) {
  if (!picture) return;
  const scale = Math.min(width / picture.naturalWidth, height / picture.naturalHeight);
  paint.drawImage(picture, 0, 0, picture.naturalWidth * scale, picture.naturalHeight * scale);
}

const spanOf = (tile) => `${counted(tile.tokens)} tokens, positions ${tile.position} to ${tile.position + tile.tokens - 1}`;

function drawTiles(data, image, picture, layer) {
  const parts = image.tiles.filter((tile) => tile.row !== null), whole = image.tiles.find((tile) => tile.row === null);
  const drawn = [];
  const size = WIDTH / Math.max(image.columns, image.rows);
  if (parts.length > 0) {
    const width = size * image.columns, height = size * image.rows;
    const {canvas, paint} = canvasOf(width, height, `${image.rows} x ${image.columns} tiles`);
    drawPicture(paint, picture, width, height);
    paint.strokeStyle = "#fff";
    for (const tile of parts) {
      drawPatches(paint, data, tile, layer, tile.column * size, tile.row * size, size);
      paint.strokeRect(tile.column * size + 0.5, tile.row * size + 0.5, size - 1, size - 1);
    }
    drawn.push(canvas);
  }
  const side = parts.length > 0 ? WIDTH / 2 : WIDTH / 1.5;
  const {canvas, paint} = canvasOf(side, side, "The whole picture in one tile");
  drawPicture(paint, picture, side, side);
  drawPatches(paint, data, whole, layer, 0, 0, side);
  drawn.push(canvas);
  return drawn;
}

/** Where the picture sits in the prompt. */
function placeOf(data, image) {
  const bar = element("div", {className: "place", role: "img",
                              "aria-label": `Positions ${image.position} to ${image.end - 1} of ${data.prompt_tokens}`});
  const part = element("span");
  part.style.left = (100 * image.position) / data.prompt_tokens + "%";
  part.style.width = (100 * (image.end - image.position)) / data.prompt_tokens + "%";
  bar.append(part);
  return bar;
}

export async function showTiles(root, data, pictures, layer) {
  const boxes = await Promise.all(data.images.map(async (image, i) => {
    const picture = pictures[i] ? await loaded(pictures[i].url) : null;
    const rows = image.tiles.map((tile) => element("li", {},
      (tile.row === null ? "Whole picture" : `Row ${tile.row + 1}, column ${tile.column + 1}`) + ": " + spanOf(tile)));
    return element("figure", {className: "tiles"},
      element("figcaption", {}, `Picture ${i + 1}: ${image.tiles.length} ${image.tiles.length === 1 ? "tile" : "tiles"} of ${image.tokens_per_tile} tokens, ` +
        `${counted(image.tokens)} together, at ${image.position} to ${image.end - 1} of the prompt's ${counted(data.prompt_tokens)}`),
      placeOf(data, image), element("div", {className: "row"}, ...drawTiles(data, image, picture, layer)),
      element("details", {}, element("summary", {}, "Tile by tile"), element("ol", {}, ...rows)));
  }));
  root.replaceChildren(...boxes);
}

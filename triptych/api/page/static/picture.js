// Pictures on their way to the server: as large as a model looks at them, no larger.
const SIDE = 512;

function asDataUri(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function drawn(blob, [x, y, w, h]) {
  const bitmap = await createImageBitmap(blob);
  const [left, top] = [x * bitmap.width, y * bitmap.height];
  const [width, height] = [Math.max(1, w * bitmap.width), Math.max(1, h * bitmap.height)];
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, left, top, width, height, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.9);
}

/** Return a picture, or a region of it in shares of its sides, as a data URI. */
export async function toSend(blob, region = [0, 0, 1, 1]) {
  try {
    return await drawn(blob, region);
  } catch {
    return asDataUri(blob); // the server says what is wrong with it
  }
}

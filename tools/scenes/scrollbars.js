// An ES module that imports this package gets all of it instead of its default.
import bundle from "./node_modules/react-custom-scrollbars-2/lib/index.js";

export const Scrollbars = bundle.Scrollbars;
export default Scrollbars;

import { render } from "preact";
import { Console } from "./app/console";
import "./style/base.css";
import "./style/parts.css";
import "./style/pages.css";
import "./style/cell.css";
import "./style/trials.css";

const root = document.getElementById("root");
if (root) render(<Console />, root);

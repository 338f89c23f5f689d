import { Memory } from "./storage";
import { applyTheme } from "./theme";

// Before the first paint: a dark page that was light for a moment is worse than one that comes later.
applyTheme(new Memory().get("theme"));

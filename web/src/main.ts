export { CLIENT } from "sluice-client";
